"""What others did to the store by hand, and projects that moved: every command goes on."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from crowned import aliases, champions, crown
from evaluated import rewrite

from emseg.data.io.stack import read_stack
from emseg.records.checked import file_digest
from emseg.records.record import RunRecord
from emseg.registry.champions import read_line
from emseg.registry.load import load_segmenter
from emseg.registry.register import register_record
from emseg.registry.versions import find_version, read_registry
from emseg.settings import load_settings
from emseg.tracking.delivery import RECORD_TAG
from emseg.tracking.location import artifact_location
from emseg.tracking.store import connect


@pytest.fixture
def member(tiny_params, store, source_folder):
    text = tiny_params.read_text().replace("minimum_sections: 5", "minimum_sections: 2")
    tiny_params.write_text(text.replace("minimum_seeds: 2", "minimum_seeds: 1"))
    return tiny_params.parent


def versions(client):
    return read_registry(client).versions


def with_champions(store, evaluated, history, count):
    """Versions 1 to `count`; all but the first have its files."""
    register_record(store, evaluated())
    first = store.get_model_version("cortex", "1")
    for number in range(2, count + 1):
        tags = first.tags | {RECORD_TAG: f"record-{number}"}
        store.create_model_version("cortex", first.source, run_id=first.run_id, tags=tags)
    crown(store, *history)


def test_versions_that_others_made_are_named_and_passed_by(member, store, evaluated, emseg):
    run = evaluated()
    register_record(store, run)
    source = store.get_model_version("cortex", "1").source
    store.create_model_version("cortex", source)
    store.create_model_version("cortex", source, tags={"emseg.digest": "{", RECORD_TAG: "it's\" odd"})
    store.create_experiment("by hand")
    for command in (
        ["registry"],
        ["promote", "--dry-run"],
        ["promote"],
        ["lineage", "models:/cortex@champion"],
        ["predict", member / "cortex" / "images.tif", member / "out.tif"],
        ["publish", run.folder.parent],
    ):
        code, _, err = emseg(*command)
        assert code == 0, err
        told = [line for line in err.splitlines() if "worse than no network" not in line]
        # Who asks for the champion need not look at the others.
        assert sorted(line.split(":")[0] for line in told) == (
            [f"version {number} of cortex is passed by" for number in (2, 3)]
            if command[0] in ("registry", "promote")
            else []
        )
    code, _, err = emseg("promote", "2")
    assert code == 2
    assert "no version 2" in err.splitlines()[-1]


@pytest.mark.parametrize(("deleted", "left"), [([3], [1, 2]), ([2], [1, 3]), ([3, 2], [1]), ([1], [2, 3])])
def test_deleted_champions_are_survived(member, store, evaluated, emseg, deleted, left):
    with_champions(store, evaluated, [1, 2, 3], 3)
    for number in deleted:
        store.delete_model_version("cortex-champion", str(number))
        store.delete_model_version("cortex", str(number))
    assert champions(store) == left
    assert find_version(store, "champion").number == left[-1]
    code, _, err = emseg("rollback")
    if len(left) == 1:
        assert code == 2
        assert "no champion to go back to; cortex has had 1" in err
        assert aliases(store) == {"champion": 1}
        first = store.get_model_version("cortex", "1")
        store.create_model_version("cortex", first.source, run_id=first.run_id, tags=first.tags | {RECORD_TAG: "new"})
        code, _, err = emseg("promote", "4", "--force", "to go on")
        assert code == 0, err
        assert champions(store) == [1, 4]
    else:
        assert code == 0, err
        assert champions(store) == left[:-1]
        assert aliases(store)["champion"] == left[-2]


def test_a_champion_whose_version_was_deleted_is_loaded_from_its_copy(member, store, evaluated, emseg):
    with_champions(store, evaluated, [1, 2], 2)
    store.delete_model_version("cortex", "2")
    for command in (
        ["predict", member / "cortex" / "images.tif", member / "out.tif"],
        ["lineage"],
        ["registry"],
        ["promote", "1"],
    ):
        code, _, err = emseg(*command)
        assert (code, "Traceback" in err) == (int(command[0] == "promote"), False), err
    assert "version 2 of cortex is champion, but was deleted; cortex-champion/2 is its copy" in err
    assert emseg("rollback")[0] == 0
    assert champions(store) == [1]


def test_an_alias_that_was_moved_or_removed_by_hand_changes_nothing(member, store, evaluated, emseg):
    with_champions(store, evaluated, [1, 2], 3)
    store.delete_registered_model_alias("cortex", "champion")
    assert find_version(store, "champion").number == 2
    store.set_registered_model_alias("cortex", "champion", "3")
    assert load_segmenter().name == "models:/cortex/2"
    assert emseg("rollback")[0] == 0
    assert aliases(store) == {"champion": 1}


def test_what_others_put_into_the_line_of_champions_is_named_and_passed_by(member, store, evaluated, emseg):
    with_champions(store, evaluated, [1, 2], 2)
    first = store.get_model_version("cortex", "1")
    store.create_model_version("cortex-champion", first.source)
    odd = {"champion.version": "1", "champion.judged_against": "9"}
    store.create_model_version("cortex-champion", first.source, run_id=first.run_id, tags=first.tags | odd)
    store.set_model_version_tag("cortex-champion", "2", "v_rand", "much")
    code, _, err = emseg("predict", member / "cortex" / "images.tif", member / "out.tif")
    assert code == 0, err
    assert [line.partition(":")[0] for line in err.splitlines()] == [
        f"version {number} of cortex-champion is passed by" for number in (3, 4, 2)
    ]
    assert "v_rand" in err
    assert find_version(store, "champion").number == 1
    code, _, err = emseg("promote", "2", "--force", "the tag was damaged by hand")
    assert code == 0, err
    assert (champions(store)[-1], read_line(store, "cortex").valid[-1].judged_against) == (2, 2)


def test_a_model_of_the_same_name_is_left_alone(member, store, evaluated, emseg):
    store.create_registered_model("cortex", {"owner": "somebody"})
    run = evaluated().folder.parent
    code, _, err = emseg("publish", run)
    assert code == 2
    assert "cortex in sqlite" in err
    assert "was not made by emseg" in err
    assert "nothing is registered" in emseg("registry")[1]
    code, out, err = emseg("publish", run, "--task", "membranes")
    assert code == 0, err
    assert "version 1 of membranes" in out
    assert emseg("publish", run, "--task", "a/b")[0] == 2
    # The pages let anyone remove a tag.
    store.delete_registered_model_tag("membranes", "emseg.kind")
    assert emseg("registry", "membranes")[0] == 0
    assert emseg("publish", run, "--task", "membranes")[0] == 0


def test_two_datasets_in_one_store_have_each_its_champion(member, store, evaluated, emseg):
    other = evaluated(1)
    other.update(dataset="hippocampus")
    rewrite(other.folder.parent, dataset="hippocampus")
    for record in (evaluated(0), other):
        assert emseg("publish", record.folder.parent)[0] == 0
    for command in (["promote"], ["rollback"], ["lineage"], ["predict", member / "cortex" / "images.tif", "out.tif"]):
        code, _, err = emseg(*command)
        assert code == 2
        assert "cortex, hippocampus; name one with --task" in err
    for task in ("cortex", "hippocampus"):
        assert emseg("promote", "--task", task)[0] == 0
    assert [champions(store, task) for task in ("cortex", "hippocampus")] == [[1], [1]]
    groups = json.loads(emseg("registry", "--json")[1])
    assert [(group["task"], group["has_champion"]) for group in groups] == [("cortex", True), ("hippocampus", True)]
    assert len(json.loads(emseg("registry", "cortex", "--json")[1])) == 1
    images = member / "cortex" / "images.tif"
    assert "models:/hippocampus/1" in emseg("predict", images, "a.tif", "--task", "hippocampus")[1]
    assert "models:/cortex/1" in emseg("predict", images, "b.tif", "--model", "models:/cortex@champion")[1]
    assert not (read_stack(Path("a.tif")) == read_stack(Path("b.tif"))).all()
    # In one task their scores never mix.
    assert emseg("publish", other.folder.parent, "--task", "cortex")[0] == 0
    code, out, _ = emseg("promote", "2", "--task", "cortex")
    assert code == 1
    assert "scores of different datasets are not compared" in out


def test_a_task_of_the_settings_is_that_of_what_is_published(member, store, evaluated, emseg, tiny_params):
    tiny_params.write_text(tiny_params.read_text().replace("task: null", "task: membranes"))
    assert "version 1 of membranes" in emseg("publish", evaluated().folder.parent)[1]
    assert emseg("promote")[0] == 0
    assert emseg("lineage")[1].startswith("version     1 of membranes  champion")


def test_a_deleted_experiment_is_restored(member, store, evaluated, emseg):
    run = evaluated().folder.parent
    assert emseg("publish", run)[0] == 0
    experiment = store.get_experiment_by_name("cortex-heldout")
    store.delete_experiment(experiment.experiment_id)
    code, _, err = emseg("publish", run)
    assert code == 0, err
    assert "had been deleted" in err
    assert store.get_experiment(experiment.experiment_id).lifecycle_stage == "active"
    assert len(store.search_runs([experiment.experiment_id])) == 1


def test_a_deleted_run_that_a_version_stands_on_is_restored(member, store, evaluated, emseg):
    run = evaluated().folder.parent
    before = json.loads(emseg("publish", run, "--json")[1])
    store.delete_run(*before["runs"].values())
    assert json.loads(emseg("publish", run, "--json")[1]) == before


def artifacts(store, number):
    return Path(store.get_model_version_download_uri("cortex", str(number)).removeprefix("file://"))


def test_a_damaged_champion_is_registered_again_and_stays_champion(member, store, evaluated, emseg):
    with_champions(store, evaluated, [1], 1)
    register_record(store, evaluated(1))
    crown(store, 2)
    run = member / "runs" / "seed1"
    (artifacts(store, 2) / "extra_files" / "weights.safetensors").write_bytes(b"")
    predict = ["predict", member / "cortex" / "images.tif"]
    code, _, err = emseg(*predict, member / "a.tif")
    assert code == 2
    assert "`emseg publish RUN --again`" in err
    assert "version 2" in emseg("publish", run)[1]
    code, out, err = emseg("publish", run, "--again")
    assert code == 0, err
    assert "version 3 of cortex" in out
    assert champions(store) == [1, 3]
    assert aliases(store) == {"champion": 3, "previous": 1}
    assert store.get_model_version("cortex-champion", "3").tags["champion.decision"] == "registered again"
    assert sorted(int(v.version) for v in store.search_model_versions("name = 'cortex'")) == [1, 3]
    assert "version 3" in emseg("publish", run)[1]
    assert emseg(*predict, member / "b.tif")[0] == 0
    assert read_stack(member / "b.tif").shape == (9, 64, 64)


def test_scores_per_section_that_are_gone_are_said(member, store, evaluated, emseg, monkeypatch):
    from emseg.registry import scores

    with_champions(store, evaluated, [1], 2)
    monkeypatch.setattr(scores, "_tables", {})
    (artifacts(store, 1) / "extra_files" / "scores.csv").unlink()
    version = find_version(store, "1")
    assert len(scores.scores_of_version(store, version).per_section) == 2  # the run has them too
    monkeypatch.setattr(scores, "_tables", {})
    folder = store.get_run(version.run_id).info.artifact_uri.removeprefix("file://")
    (Path(folder) / "scores.csv").write_text("section,v_rand\n7,1.0\n")
    code, out, err = emseg("registry")
    assert code == 0
    assert "its scores per section cannot be read" in err
    assert "champion" in out
    code, out, err = emseg("promote", "2")
    assert code == 1
    assert "NO   same test: models:/cortex/1: its scores per section cannot be read" in out


def test_a_store_that_may_only_be_read_is_read(member, store, evaluated, emseg, monkeypatch):
    import os

    with_champions(store, evaluated, [1], 2)
    images = shutil.copy(member / "cortex" / "images.tif", member / "runs" / "images.tif")
    paths = [member / "mlflow.db", *(member / "mlruns").rglob("*"), member / "mlruns", member]
    modes = [(path, path.stat().st_mode) for path in paths]
    for path, mode in modes:
        path.chmod(mode & ~0o222)
    try:
        if os.access(member / "mlflow.db", os.W_OK):
            pytest.skip("this user may write everywhere")
        for command in (["registry"], ["lineage"], ["predict", images, member / "runs" / "out.tif"]):
            code, _, err = emseg(*command)
            assert (code, err) == (0, "")
        code, _, err = emseg("promote", "2", "--force", "to try it")
        assert code == 1
        assert "can only be read here, so it is not possible to promote a version" in err
    finally:
        for path, mode in reversed(modes):
            path.chmod(mode)


def test_a_version_is_not_replaced_by_other_weights(member, store, evaluated, emseg):
    with_champions(store, evaluated, [1], 1)
    other = evaluated(5)
    run = member / "runs" / "seed0"
    shutil.copy(other.weights_file, run / "training")
    RunRecord(run / "training").update(weights_sha256=file_digest(other.weights_file))
    rewrite(run)
    code, _, err = emseg("publish", run, "--again")
    assert code == 2
    assert "other weights" in err
    assert [v.number for v in versions(store)] == [1]


def test_a_replacement_that_was_killed_halfway_is_complete_to_readers(store, evaluated):
    with_champions(store, evaluated, [1], 1)
    first = store.get_model_version("cortex", "1")
    tags = first.tags | {"emseg.replaces": "1"}
    store.create_model_version("cortex", first.source, run_id=first.run_id, tags=tags)
    # A second machine registered the same record at the same moment.
    store.create_model_version("cortex", first.source, run_id=first.run_id, tags=first.tags)
    assert [v.number for v in versions(store)] == [2]
    assert find_version(store, "champion").number == 2
    assert read_registry(store).champion.number == 2


def test_artifacts_lie_beside_their_store_whatever_the_current_folder(store, evaluated, monkeypatch):
    folder = Path.cwd()
    (folder / "projects" / "x").mkdir(parents=True)
    monkeypatch.chdir(folder / "projects" / "x")
    register_record(store, evaluated())
    assert not list(Path.cwd().iterdir())
    assert artifacts(store, 1).is_relative_to(folder / "mlruns")


@pytest.mark.parametrize("kind", ["moved", "copied", "made by MLflow in the current folder"])
def test_a_project_that_moved_or_was_copied_finds_its_own_artifacts(store, evaluated, tmp_path, monkeypatch, kind):
    first = tmp_path / "first lab#2"
    first.mkdir()
    shutil.copy(tmp_path / "mlflow.db", first)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{first / 'mlflow.db'}")
    monkeypatch.chdir(first)
    if kind == "made by MLflow in the current folder":
        monkeypatch.setattr("emseg.tracking.publish.artifact_location", lambda uri, name: str(first / "mlruns" / "1"))
    record = evaluated()
    register_record(connect(), record)
    monkeypatch.setattr("emseg.tracking.publish.artifact_location", artifact_location)
    second = tmp_path / "second"
    (shutil.copytree if kind == "copied" else shutil.move)(first, second)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{second / 'mlflow.db'}")
    monkeypatch.chdir(second)
    client = connect()
    with sqlite3.connect(second / "mlflow.db") as connection:
        for table, column in (("runs", "artifact_uri"), ("logged_models", "artifact_location")):
            for (place,) in connection.execute(f"SELECT {column} FROM {table}"):
                assert str(second) in place
    assert load_segmenter("models:/cortex/1").name == "models:/cortex/1"
    assert load_segmenter(find_version(client, "1").run_id)
    register_record(client, evaluated(3))
    assert artifacts(client, 2).is_relative_to(second)
    assert first.exists() == (kind == "copied")


def test_of_several_records_the_damaged_ones_are_named_and_the_others_published(member, store, evaluated, emseg):
    good, bad, worse = (evaluated(seed).folder.parent for seed in range(3))
    (bad / "evaluation" / "metrics.json").write_text("{")
    (worse / "training" / "record.json").write_text("")
    code, out, err = emseg("publish", good, bad, worse, member / "nowhere")
    assert code == 1
    assert f"{good}/training: MLflow run" in out
    assert len(err.splitlines()) == 3
    for folder in (bad, worse, member / "nowhere"):
        assert str(folder) in err
    assert [v.number for v in versions(store)] == [1]


def test_notes_and_descriptions_obey_no_name(store, evaluated):
    record = evaluated()
    odd = "<img src=x onerror=alert(1)>|[a](http://b)\x1b[31m`x`"
    record.update(model=odd, lineage=record.read().lineage.model_copy(update={"device": odd}))
    rewrite(record.folder.parent, model=odd)
    from emseg.tracking.publish import publish_record

    run = store.get_run(publish_record(store, record))
    from emseg.records.evaluation import read_evaluation
    from emseg.registry.package import model_card

    card = model_card(record.read(), read_evaluation(record.evaluation_folder))
    for shown in (run.data.tags["mlflow.note.content"], card, str(store.search_experiments()[0].tags)):
        assert "<img" not in shown
        assert "](http" not in shown
        assert "\x1b" not in shown


def test_a_password_reaches_no_file_and_no_printed_command(member, store, evaluated, emseg, monkeypatch):
    register_record(store, evaluated())
    monkeypatch.setattr("emseg.tracking.store.store_uri", lambda: "postgresql://lab:sesame@db/mlflow")
    from emseg.registry.lineage import lineage

    assert "export MLFLOW_TRACKING_URI=postgresql://db/mlflow" in lineage(store, "1").commands
    from emseg.project.stages import publish

    monkeypatch.setattr(publish, "RESULTS", member / "results")
    monkeypatch.setattr(publish, "connect", lambda: store)
    monkeypatch.setattr(publish, "benchmark_records", lambda settings: [])
    publish.run(load_settings())
    assert json.loads((member / "results" / "published.json").read_text())["store"] == "postgresql://db/mlflow"


def test_a_storage_for_trials_out_of_reach_is_said_without_its_password(member, emseg):
    shutil.copytree(member / "cortex", member / "data" / "sources" / "cortex")
    storage = "postgresql+psycopg://lab:sesame@127.0.0.1:9/optuna"
    changes = ["data.source=cortex", "tuning.model=residual_unet", "tuning.space.depth=null"]
    quick = [part for change in changes for part in ("--set", change)]
    code, out, err = emseg("tune", "run", "--storage", storage, *quick)
    assert code == 2
    assert "cannot be used" in err
    assert "sesame" not in out + err
