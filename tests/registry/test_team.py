"""What others did to the store by hand, and projects that moved: every command goes on."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from evaluated import rewrite

from emseg.data.io.stack import read_stack
from emseg.records.checked import file_digest
from emseg.records.record import RunRecord
from emseg.registry.champions import registry_lock, set_champions
from emseg.registry.described import MODEL_NAME
from emseg.registry.load import load_segmenter
from emseg.registry.register import register_record
from emseg.registry.versions import HISTORY_TAG, champions, find_version, versions
from emseg.settings import load_settings
from emseg.tracking.delivery import RECORD_TAG
from emseg.tracking.location import artifact_location
from emseg.tracking.store import connect


@pytest.fixture
def member(tiny_params, store, source_folder):
    text = tiny_params.read_text().replace("minimum_sections: 5", "minimum_sections: 2")
    tiny_params.write_text(text.replace("minimum_seeds: 2", "minimum_seeds: 1"))
    return tiny_params.parent


def aliases(client):
    return {alias: int(number) for alias, number in client.get_registered_model(MODEL_NAME).aliases.items()}


def with_champions(store, evaluated, history, count):
    """Versions 1 to `count`; all but the first have its files."""
    register_record(store, evaluated())
    first = store.get_model_version(MODEL_NAME, "1")
    for number in range(2, count + 1):
        tags = first.tags | {RECORD_TAG: f"record-{number}"}
        store.create_model_version(MODEL_NAME, first.source, run_id=first.run_id, tags=tags)
    with registry_lock(store):
        set_champions(store, history)


def test_versions_that_others_made_are_named_and_passed_by(member, store, evaluated, emseg):
    run = evaluated()
    register_record(store, run)
    source = store.get_model_version(MODEL_NAME, "1").source
    store.create_model_version(MODEL_NAME, source)
    store.create_model_version(MODEL_NAME, source, tags={"emseg.description": "{", RECORD_TAG: "it's\" odd"})
    store.create_experiment("by hand")
    for command in (
        ["registry"],
        ["promote", "--dry-run"],
        ["promote"],
        ["lineage", "models:/emseg-membrane@champion"],
        ["predict", member / "cortex" / "images.tif", member / "out.tif"],
        ["publish", run.folder.parent],
    ):
        code, _, err = emseg(*command)
        assert code == 0, err
        if command[0] != "publish":
            told = [line for line in err.splitlines() if "worse than no network" not in line]
            assert [line.split(":")[0] for line in told] == [
                f"version {number} of {MODEL_NAME} is passed by" for number in (3, 2)
            ] or {line[8] for line in told} == {"2", "3"}
    code, _, err = emseg("promote", "2")
    assert code == 2
    assert "no version 2" in err.splitlines()[-1]


@pytest.mark.parametrize("deleted", [[3], [2], [3, 2], [1]])
def test_deleted_champions_are_survived(member, store, evaluated, emseg, deleted):
    with_champions(store, evaluated, [1, 2, 3], 3)
    for number in deleted:
        store.delete_model_version(MODEL_NAME, str(number))
    left = [number for number in (1, 2, 3) if number not in deleted]
    assert champions(store) == left
    assert find_version(store, "champion").number == left[-1]
    code, _, err = emseg("rollback")
    if len(left) == 1:
        assert code == 2
        assert "no champion to go back to; the registry has had 1" in err
        assert aliases(store) == {"champion": 1}
        first = store.get_model_version(MODEL_NAME, "1")
        store.create_model_version(MODEL_NAME, first.source, run_id=first.run_id, tags=first.tags | {RECORD_TAG: "new"})
        code, _, err = emseg("promote", "4", "--force", "to go on")
        assert code == 0, err
        assert json.loads(store.get_registered_model(MODEL_NAME).tags[HISTORY_TAG]) == [1, 4]
    else:
        assert code == 0, err
        assert aliases(store)["champion"] == left[-2]


def test_an_alias_that_was_moved_or_removed_by_hand_changes_nothing(member, store, evaluated, emseg):
    with_champions(store, evaluated, [1, 2], 3)
    store.delete_registered_model_alias(MODEL_NAME, "champion")
    assert find_version(store, "champion").number == 2
    store.set_registered_model_alias(MODEL_NAME, "champion", "3")
    assert load_segmenter().name == "models:/emseg-membrane/2"
    assert emseg("rollback")[0] == 0
    assert aliases(store) == {"champion": 1}


@pytest.mark.parametrize("tag", ["", "[", "{}", '["1"]', "[true]", "[[]]", "null", "[1e3]", "[" * 20000])
def test_a_list_of_champions_that_cannot_be_read_is_put_right(member, store, evaluated, emseg, tag):
    with_champions(store, evaluated, [1], 1)
    store.set_registered_model_tag(MODEL_NAME, HISTORY_TAG, tag)
    code, _, err = emseg("predict", member / "cortex" / "images.tif", member / "out.tif")
    assert code == 0
    assert "is no list of versions" in err
    assert champions(store) == [1]


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
    return Path(store.get_model_version_download_uri(MODEL_NAME, str(number)).removeprefix("file://"))


def test_a_damaged_champion_is_registered_again_and_stays_champion(member, store, evaluated, emseg):
    with_champions(store, evaluated, [1], 1)
    register_record(store, evaluated(1))
    with registry_lock(store):
        set_champions(store, [1, 2])
    run = member / "runs" / "seed1"
    (artifacts(store, 2) / "extra_files" / "weights.safetensors").write_bytes(b"")
    predict = ["predict", member / "cortex" / "images.tif"]
    code, _, err = emseg(*predict, member / "a.tif")
    assert code == 2
    assert "`emseg publish RUN --again`" in err
    assert "version 2" in emseg("publish", run)[1]
    code, out, err = emseg("publish", run, "--again")
    assert code == 0, err
    assert "version 3 of emseg-membrane" in out
    assert champions(store) == [1, 3]
    assert aliases(store) == {"champion": 3, "previous": 1}
    assert sorted(int(v.version) for v in store.search_model_versions(f"name = '{MODEL_NAME}'")) == [1, 3]
    assert "version 3" in emseg("publish", run)[1]
    assert emseg(*predict, member / "b.tif")[0] == 0
    assert read_stack(member / "b.tif").shape == (9, 64, 64)


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
    first = store.get_model_version(MODEL_NAME, "1")
    tags = first.tags | {"emseg.replaces": "1"}
    store.create_model_version(MODEL_NAME, first.source, run_id=first.run_id, tags=tags)
    # A second machine registered the same record at the same moment.
    store.create_model_version(MODEL_NAME, first.source, run_id=first.run_id, tags=first.tags)
    assert [v.number for v in versions(store)] == [2]
    assert champions(store) == [2]
    assert find_version(store, "champion").number == 2


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
    assert load_segmenter("models:/emseg-membrane/1").name == "models:/emseg-membrane/1"
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
