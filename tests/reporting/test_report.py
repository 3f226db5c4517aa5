import shutil

import pandas as pd
import pytest
from evaluated import make_run

from emseg.errors import InputError
from emseg.models import catalog_entry
from emseg.reporting.ablation import ablations
from emseg.reporting.report import write_report
from emseg.reporting.runs import read_runs
from emseg.training.record import RunRecord


def test_another_way_to_score_the_same_networks_is_no_other_training(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path, f"run{seed}", 0.05 * (1 + seed), seed=seed)
        shutil.copytree(tmp_path / f"run{seed}", tmp_path / f"other{seed}")
        RunRecord.open(tmp_path / f"other{seed}").update(variation="/other cells")
    table = ablations(read_runs(tmp_path))
    # Were the seeds drawn apart, the interval would be as wide as the networks differ.
    assert (table[["mean", "low", "high"]] == 0).all(axis=None)
    text = write_report([tmp_path], tmp_path / "report", "Cortex", "make everything").read_text()
    assert text.count("| unet2 (best) heldout | 0 |") == 2
    assert "4 minutes in all" in text


def test_the_report_holds_every_table_and_figure(tmp_path):
    make_run(tmp_path / "runs", "best", 0.05)
    make_run(tmp_path / "runs", "paper", 0.08, profile="paper")
    make_run(tmp_path / "runs", "folds", 0.05, protocol="kfold")
    make_run(tmp_path / "runs", "short", 0.05, variation="short")
    make_run(tmp_path / "runs", "change", 0.10, variation="short/no average")
    path = write_report([tmp_path / "runs"], tmp_path / "report", "Cortex", "make everything")
    text = path.read_text()
    for part in ("# Cortex", "`make everything`", "unet2 (best)", "unet2 (paper)", "protocol kfold", "no average"):
        assert part in text
    assert "Makes something worse: no average." in text
    assert "DMCN (Chen et al. 2016)" in text
    assert "2.4" in text  # TFLOP: 1e9 per crop, 2400 crops
    assert "20 |" in text  # GFLOP/s over 120 seconds
    for figure in ("cortex-heldout-comparison", "cortex-heldout-curves", "cortex-kfold-comparison"):
        assert (path.parent / f"{figure}.png").stat().st_size > 5000
        assert f"({figure}.png)" in text
    sections = pd.read_csv(path.parent / "sections.csv")
    assert len(sections) == 5 * 5
    # The variations are not models of the leaderboard.
    assert set(pd.read_csv(path.parent / "models.csv")["model"].dropna()) >= {"unet2 (best)", "unet2 (paper)"}
    assert len(pd.read_csv(path.parent / "models.csv").query("model == 'unet2 (best)'")) == 2


def test_under_the_studys_protocol_every_model_stands_beside_its_row(tmp_path):
    for model, error in (("unet2", 0.0689), ("dmcn", 0.075), ("residual_unet", 0.01)):
        make_run(tmp_path / "runs", model, error, protocol="paper", model=model, profile="", dataset="isbi2012")
        make_run(tmp_path / "runs", f"{model}-heldout", error, model=model, profile="", dataset="isbi2012")
        make_run(tmp_path / "runs", f"{model}-cortex", error, protocol="paper", model=model, profile="")
    text = write_report([tmp_path / "runs"], tmp_path / "report", "Cortex", "make everything").read_text()
    heading = "## Against the study's table"
    assert text.count(heading) == 1
    columns, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.split(heading)[1].split("\n## ")[0].splitlines()
        if line.startswith("| ")
    ]
    found = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    assert set(found) == {"unet2", "dmcn"}  # the study has no residual_unet
    assert found["unet2"]["study's pixel_error"] == "0.0690"
    for model, row in found.items():
        study = catalog_entry(model).study
        worse = [
            metric
            for metric in study
            if (float(row[metric]) - study[metric]) * (1 if metric.endswith("error") else -1) > 0
        ]
        assert row["short of it in"] == (", ".join(worse) or "nothing")
    assert "pixel_error" in found["dmcn"]["short of it in"]


def test_a_report_can_be_made_again_and_joined_by_runs_from_its_records_alone(tmp_path):
    first, second, both = (tmp_path / name for name in ("first", "second", "both"))
    make_run(first / "heldout", "unet2", 0.05)
    make_run(first / "heldout", "dmcn", 0.08, model="dmcn")
    make_run(second / "heldout", "dmcn", 0.02, model="dmcn")
    make_run(second / "heldout", "unet1", 0.04, model="unet1")

    report = tmp_path / "report"
    text = write_report([first], report, "Cortex", "make everything").read_text()
    shutil.rmtree(first)
    again = write_report([report / "records"], report, "Cortex", "make everything").read_text()
    assert again == text

    joined = write_report([report / "records", second], report, "Cortex", "make everything").read_text()
    make_run(both, "unet2", 0.05)
    make_run(both, "dmcn", 0.02, model="dmcn")
    make_run(both, "unet1", 0.04, model="unet1")
    at_once = write_report([both], tmp_path / "other", "Cortex", "make everything").read_text()
    assert joined == at_once


def test_without_runs_it_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no evaluated runs"):
        write_report([tmp_path], tmp_path / "report", "Nothing", "nothing")
    assert not (tmp_path / "report").exists()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    make_run(tmp_path / "runs", "best", 0.05)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/report cannot be made.*choose another"):
        write_report([tmp_path / "runs"], tmp_path / "file" / "report", "Cortex", "make everything")


@pytest.mark.parametrize("file", ["training/record.json", "evaluation/metrics.json", "evaluation/scores.csv"])
def test_a_damaged_run_is_one_sentence_that_names_it(tmp_path, file):
    make_run(tmp_path / "runs", "best", 0.05)
    (tmp_path / "runs" / "best" / file).write_text("")
    with pytest.raises(InputError, match=f"runs/best/{file} is"):
        write_report([tmp_path / "runs"], tmp_path / "report", "Cortex", "make everything")
    assert not (tmp_path / "report").exists()
