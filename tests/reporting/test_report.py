import gc
import os
import shutil
import zipfile

import pandas as pd
import pytest
from evaluated import make_run, rewrite

from emseg.data.datasets.known import known_cards
from emseg.errors import InputError
from emseg.records.record import RunRecord
from emseg.reporting import runs as runs_module
from emseg.reporting.ablation import ablations
from emseg.reporting.report import write_report
from emseg.reporting.runs import keep_runs, read_runs


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


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
    assert "Published entries" not in text  # of other sections
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


def test_under_the_references_protocol_every_model_stands_beside_its_row(tmp_path):
    challenge = {"profile": "", "data_digest": "0face5632f7b1d4238256f4a18cafd98"}
    for model, error in (("unet2", 0.0689), ("dmcn", 0.075), ("residual_unet", 0.01)):
        make_run(tmp_path / "runs", model, error, protocol="paper", model=model, **challenge)
        make_run(tmp_path / "runs", f"{model}-heldout", error, model=model, **challenge)
        make_run(tmp_path / "runs", f"{model}-isbi2012", error, protocol="paper", model=model, dataset="isbi2012")
    text = write_report([tmp_path / "runs"], tmp_path / "report", "Cortex", "make everything").read_text()
    heading = "## Against the reference's table"
    assert text.count(heading) == 1
    columns, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.split(heading)[1].split("\n## ")[0].splitlines()
        if line.startswith("| ")
    ]
    found = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    assert set(found) == {"unet2", "dmcn"}  # the reference has no residual_unet
    assert found["unet2"]["reference pixel_error"] == "0.0690"
    for model, row in found.items():
        reference = known_cards()["isbi2012"].reference.table[model]
        worse = [
            metric
            for metric, value in reference.items()
            if (float(row[metric]) - value) * (1 if metric.endswith("error") else -1) > 0
        ]
        assert row["short of it in"] == (", ".join(worse) or "nothing")
    assert "pixel_error" in found["dmcn"]["short of it in"]
    assert text.count("## Published entries") == 1
    assert "| best published (SFCNN, mutex watershed; about) | 0.987-0.988 | 0.991-0.992 | 0.058 |" in text
    assert "| second human observer |  |  | 0.067 |" in text


def test_a_report_can_be_made_again_and_joined_by_runs_from_its_records_alone(tmp_path):
    first, second, both = (tmp_path / name for name in ("first", "second", "both"))
    make_run(first / "heldout", "unet2", 0.05)
    make_run(first / "heldout", "dmcn", 0.08, model="dmcn")
    make_run(second / "heldout", "dmcn", 0.02, model="dmcn")
    make_run(second / "heldout", "unet1", 0.04, model="unet1")

    report = tmp_path / "report"
    write_report([first], report, "Cortex", "make everything")
    before = contents(report)
    shutil.rmtree(first)
    write_report([report / "records.zip"], report, "Cortex", "make everything")
    assert contents(report) == before

    joined = write_report([report / "records.zip", second], report, "Cortex", "make everything").read_text()
    make_run(both, "unet2", 0.05)
    make_run(both, "dmcn", 0.02, model="dmcn")
    make_run(both, "unet1", 0.04, model="unet1")
    at_once = write_report([both], tmp_path / "other", "Cortex", "make everything").read_text()
    assert joined == at_once


def test_records_are_the_same_bytes_whenever_they_are_written_and_hold_no_weights(tmp_path):
    make_run(tmp_path / "runs", "best", 0.05)
    (tmp_path / "runs" / "best" / "training" / "weights.safetensors").write_bytes(b"weights")
    keep_runs(read_runs(tmp_path / "runs"), tmp_path / "records.zip")
    for file in (tmp_path / "runs").rglob("*.*"):
        os.utime(file, (0, 10**9))
    keep_runs(read_runs(tmp_path / "runs"), tmp_path / "later.zip")
    assert (tmp_path / "records.zip").read_bytes() == (tmp_path / "later.zip").read_bytes()
    names = zipfile.ZipFile(tmp_path / "records.zip").namelist()
    assert names == [
        "best/evaluation/baselines.csv",
        "best/evaluation/metrics.json",
        "best/evaluation/scores.csv",
        "best/training/history.csv",
        "best/training/record.json",
    ]


def test_what_was_learned_of_merging_is_kept_since_the_scores_name_it(tmp_path):
    make_run(tmp_path / "runs", "best", 0.05)
    (tmp_path / "runs" / "best" / "evaluation" / "agglomeration.json").write_text("{}")
    rewrite(tmp_path / "runs" / "best")
    keep_runs(read_runs(tmp_path / "runs"), tmp_path / "records.zip")
    (run,) = read_runs(tmp_path / "records.zip")
    assert "agglomeration.json" in run.evaluation.files


def test_unpacked_records_are_gone_when_nobody_reads_their_runs(tmp_path):
    make_run(tmp_path / "runs", "best", 0.05)
    keep_runs(read_runs(tmp_path / "runs"), tmp_path / "records.zip")
    runs = read_runs(tmp_path / "records.zip")
    folder = runs[0].folder
    gc.collect()
    assert len(runs[0].record.history()) == 2
    del runs
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize(
    "name",
    [
        "../best/training/record.json",
        "/best/training/record.json",
        "best//training/record.json",
        "best\\training/training/record.json",
        "c:best/training/record.json",
        "best/training/weights.safetensors",
        "best/training/record.json/",
    ],
)
def test_records_with_other_files_are_refused_before_they_are_unpacked(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "records.zip", "w") as records:
        records.writestr("best/training/history.csv", "epoch")
        records.writestr(name, "{}")
    with pytest.raises(InputError, match=r"records\.zip is not the records of a report: it holds '.*which no report"):
        read_runs(tmp_path / "records.zip")
    assert [file.name for file in tmp_path.iterdir()] == ["records.zip"]


def test_records_that_would_fill_the_disk_are_refused(tmp_path, monkeypatch):
    make_run(tmp_path / "runs", "best", 0.05)
    runs = read_runs(tmp_path / "runs")
    keep_runs(runs, tmp_path / "records.zip")
    for limit, value, sentence in (("_LARGEST_CONTENT", 100, "MiB large"), ("_MOST_FILES", 4, "holds 5 files")):
        with monkeypatch.context() as patch:
            patch.setattr(runs_module, limit, value)
            with pytest.raises(InputError, match=f"not the records of a report: .*{sentence}"):
                read_runs(tmp_path / "records.zip")
            with pytest.raises(InputError, match=f"cannot keep these runs: .*{sentence}"):
                keep_runs(runs, tmp_path / "other.zip")
            assert not (tmp_path / "other.zip").exists()


def test_damaged_records_are_one_sentence(tmp_path):
    make_run(tmp_path / "runs", "best", 0.05)
    path = tmp_path / "records.zip"
    keep_runs(read_runs(tmp_path / "runs"), path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 1
    for content in (b"", whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"records\.zip is not the records of a report, or is damaged: "):
            read_runs(path)


def test_a_damaged_run_inside_records_is_named_by_where_it_lies_in_them(tmp_path):
    make_run(tmp_path / "runs", "best", 0.05)
    keep_runs(read_runs(tmp_path / "runs"), tmp_path / "whole.zip")
    with zipfile.ZipFile(tmp_path / "whole.zip") as whole, zipfile.ZipFile(tmp_path / "records.zip", "w") as records:
        for member in whole.namelist():
            records.writestr(member, "" if member.endswith("scores.csv") else whole.read(member))
    with pytest.raises(InputError, match=r"records\.zip/best/evaluation/scores\.csv is"):
        read_runs(tmp_path / "records.zip")


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
