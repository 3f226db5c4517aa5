"""Scores belong to their weights: who retrains, edits or mixes is told, by boards, publishing and predict."""

import json
import shutil

import pytest
from evaluated import rewrite, write_values

from emseg.data.io.stack import write_stack

RUN = "runs/single/dmcn-fold0-seed0"
SHORT = ("--set", "training.epochs=1")


@pytest.fixture
def project(tmp_path, store, tiny_params, source_folder, emseg):
    """A project with one evaluated run."""
    shutil.copytree(source_folder, tmp_path / "data" / "sources" / "cortex")
    tiny_params.write_text(tiny_params.read_text().replace("source: synthetic", "source: cortex"))
    assert emseg("train", "dmcn", *SHORT)[0] == 0
    assert emseg("evaluate", RUN)[0] == 2
    assert emseg("calibrate", RUN)[0] == 0
    assert emseg("evaluate", RUN)[0] == 0
    return tmp_path


def refused_everywhere(emseg, reason):
    """Every command that would use the scores says why it does not."""
    for command in (["leaderboard"], ["publish", RUN]):
        code, _, err = emseg(*command)
        assert code == 2, command
        assert reason in err, command
        assert "evaluate the run again" in err
    assert json.loads(emseg("registry", "--json")[1]) == []


def test_scores_of_the_weights_before_are_refused(project, emseg):
    code, _, err = emseg("train", "dmcn", *SHORT, "--set", "training.learning_rate=0.01")
    assert code == 2
    assert "holds a finished run of another training; choose another --folder, or give --overwrite" in err
    assert emseg("leaderboard")[0] == 0
    assert emseg("train", "dmcn", *SHORT, "--set", "training.learning_rate=0.01", "--overwrite")[0] == 0
    refused_everywhere(emseg, "holds scores of another run than the one beside it")
    for command in (["predict", "data/sources/cortex/images.tif", "out.tif", "--model", RUN], ["evaluate", RUN]):
        code, _, err = emseg(*command)
        assert code == 2
        assert "was made from other weights than those beside it; calibrate the run again" in err
    assert emseg("calibrate", RUN)[0] == 0
    refused_everywhere(emseg, "holds scores of another run than the one beside it")
    assert emseg("evaluate", RUN)[0] == 0
    assert emseg("leaderboard")[0] == 0
    assert emseg("publish", RUN)[0] == 0


@pytest.mark.parametrize("change", ["means", "table", "split", "fold", "protocol"])
def test_scores_that_were_edited_are_refused(project, emseg, change):
    folder = project / RUN / "evaluation"
    metrics = json.loads((folder / "metrics.json").read_text())
    if change == "means":
        rewrite(project / RUN, v_rand=metrics["v_rand"] | {"mean": 0.9999})
        reason = "metrics.json and scores.csv do not belong together: v_rand is 0.9999 in one"
    elif change == "table":
        text = (folder / "scores.csv").read_text()
        (folder / "scores.csv").write_text(text.replace("0.", "0.9", 1))
        reason = "scores.csv is not what was evaluated"
    elif change == "split":
        file = project / RUN / "training" / "record.json"
        record = json.loads(file.read_text())
        record["split"]["test"] = [0, 1]
        write_values(file, record)
        reason = "holds scores of another run than the one beside it (split differ)"
    else:
        rewrite(project / RUN, **({"fold": 1} if change == "fold" else {"protocol": "kfold"}))
        reason = f"({change} differ)"
    refused_everywhere(emseg, reason)


def test_the_run_beside_it_is_ranked_and_published_all_the_same(project, emseg):
    assert emseg("train", "unet2", *SHORT)[0] == 0
    for step in ("calibrate", "evaluate"):
        assert emseg(step, "runs/single/unet2-fold0-seed0")[0] == 0
    rewrite(project / RUN, fold=1)
    code, out, err = emseg("leaderboard", "--json")
    assert code == 1
    assert f"passed by: {RUN}/evaluation holds scores of another run" in err
    assert [row["model"] for row in json.loads(out) if "baseline" not in row["model"]] == ["unet2"]
    code, out, err = emseg("publish", "--json")
    assert code == 1
    assert RUN in err
    assert list(json.loads(out)["versions"]) == ["runs/single/unet2-fold0-seed0/training"]


def test_scores_on_sections_that_have_changed_since_are_not_made(project, emseg, stack):
    images = stack[0].copy()
    images[0, 0, 0] ^= 1
    write_stack(project / "data/sources/cortex/images.tif", images)
    code, _, err = emseg("evaluate", RUN)
    assert code == 2
    assert "was trained on cortex with digest" in err


def test_scores_of_the_calibration_before_are_refused(project, emseg):
    before = json.loads((project / RUN / "evaluation" / "metrics.json").read_text())
    assert emseg("calibrate", RUN)[0] == 0
    # The same method finds the same thresholds, so its scores still fit.
    assert emseg("leaderboard")[0] == 0
    assert emseg("calibrate", RUN, "--cells", "agglomeration")[0] == 0
    refused_everywhere(emseg, "holds scores of another calibration than")
    assert emseg("evaluate", RUN)[0] == 0
    after = json.loads((project / RUN / "evaluation" / "metrics.json").read_text())
    assert after["cells"] == "agglomeration"
    assert after["v_rand_thresholded"] == before["v_rand"]
    assert after["made_from"] == before["made_from"]


def test_a_version_has_the_scores_of_the_last_evaluation(project, emseg):
    assert emseg("publish", RUN)[0] == 0
    assert emseg("publish", RUN)[0] == 0
    (group,) = json.loads(emseg("registry", "--json")[1])
    assert [version["version"] for version in group["versions"]] == [1]
    assert emseg("calibrate", RUN, "--cells", "agglomeration")[0] == 0
    assert emseg("evaluate", RUN)[0] == 0
    assert emseg("publish", RUN)[0] == 0
    (group,) = json.loads(emseg("registry", "--json")[1])
    (version,) = group["versions"]
    metrics = json.loads((project / RUN / "evaluation" / "metrics.json").read_text())
    assert version["version"] == 2
    assert version["metrics"]["v_rand"] == pytest.approx(metrics["v_rand"], abs=1e-6)
