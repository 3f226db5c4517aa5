"""The reports of this repository: every link leads somewhere, and kept records can still be read."""

import re
from pathlib import Path

import pandas as pd
import pytest

from emseg.reporting.runs import read_runs

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "reports").glob("**/*.md"))]
RECORDS = sorted((PROJECT / "reports").glob("**/records.zip"))


def named(file):
    return file.relative_to(PROJECT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files_and_files_that_a_command_names_exist(page):
    text = page.read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (page.parent / link).exists()]
    commands = [command for command in re.findall(r"`([^`\n]+)`", text) if "git checkout" not in command]
    named_there = [path for command in commands for path in re.findall(r"reports/\S+jobs\.yaml", command)]
    missing += [path for path in named_there if not (PROJECT / path).exists()]
    assert not missing


def test_every_report_is_in_the_index_or_the_archive_table():
    index = (PROJECT / "reports" / "README.md").read_text(encoding="utf-8")
    archive = (PROJECT / "reports" / "archive" / "README.md").read_text(encoding="utf-8")
    for folder, page in (("current", index), ("archive", archive)):
        for report in (PROJECT / "reports" / folder).glob("*/report.md"):
            assert report.parent.name + "/" in page


@pytest.mark.parametrize("records", RECORDS, ids=named)
def test_kept_records_hold_every_run_of_the_report(records):
    sections = pd.read_csv(records.with_name("sections.csv"), keep_default_na=False)
    keys = ["model", "variation", "protocol", "fold", "seed"]
    runs = {
        (run.model, run.variation, *(getattr(run.evaluation, key) for key in ("protocol", "fold", "seed")))
        for run in read_runs(records)
    }
    assert runs == set(sections[keys].itertuples(index=False, name=None))
