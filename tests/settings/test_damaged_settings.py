"""Damaged and odd settings: one sentence, or settings to train with; never a traceback, and nothing written."""

import shutil
from pathlib import Path

import pytest
import yaml
from damage import ODD_VALUES, damaged_bytes, damaged_values

from emseg.errors import InputError, ending
from emseg.project.jobs import job_settings, read_jobs
from emseg.settings import load_settings, profile_values, read_yaml, validate_settings
from emseg.settings.file import as_yaml
from emseg.training.plan import check_plans

PROJECT = Path(__file__).parents[2]
JOBS = """
- {name: wide, model: unet2, profile: quick, data: cortex, protocol: heldout, fold: 0, seed: 0,
   set: {training: {weight_average: 0.0}, models: {unet2: {network: {dropout: 0.2}}}}}
- {model: dmcn, data: cortex, protocol: kfold, fold: 1, seed: 3}
"""


@pytest.fixture
def project(tmp_path, tiny_params, source):
    """A folder with settings, profiles and jobs."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.move(tiny_params, folder / "params.yaml")
    for name in ("profiles.yaml", "dvc.yaml", ".dvcignore"):
        shutil.copy(PROJECT / name, folder / name)
    (folder / "jobs.yaml").write_text(JOBS)
    return folder


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusals(cases, use, folder):
    """Of cases (name, prepare): what was refused; nothing else may be raised and no file may be written by `use`."""
    refused = []
    for name, prepare in cases:
        prepare()
        before = files_of(folder)
        try:
            use()
        except InputError as error:
            sentence, code = ending(error)
            assert code == 2, name
            assert sentence.isprintable(), name
            assert 10 < len(sentence) < 2000, name
            refused.append(name)
            assert files_of(folder) == before, name
    return refused


def writing(path, cases):
    return [
        (name, lambda content=content: path.write_bytes(content if isinstance(content, bytes) else content.encode()))
        for name, content in cases
    ]


def both_kinds(path, values, count):
    """Damaged files of settings: `count` by bytes, `count` by values."""
    whole = path.read_bytes()
    odd = [(name, yaml.safe_dump(value, sort_keys=False)) for name, value in damaged_values(values, 5, count)]
    return writing(path, [*damaged_bytes(whole, 4, count), *odd])


def test_damaged_params(project, source):
    path = project / "params.yaml"
    cases = both_kinds(path, read_yaml(path), 45)

    def use():
        settings = load_settings(path)
        check_plans(settings, source, settings.benchmark)

    refused = refusals(cases, use, project)
    assert len(refused) > len(cases) / 2


def test_damaged_profiles(project):
    path = project / "profiles.yaml"
    cases = both_kinds(path, read_yaml(path), 20)

    def use():
        for profile in ("quick", "best", "tune"):
            validate_settings(profile_values(project, profile, {}), "profiles.yaml: ")

    assert len(refusals(cases, use, project)) > len(cases) / 3
    path.write_text("quick: [1]\n")
    with pytest.raises(InputError, match=r"profiles.yaml, quick must be a mapping"):
        profile_values(project, "quick", {})


def test_damaged_jobs(project, source):
    path = project / "jobs.yaml"

    def use():
        for job in read_jobs(path):
            check_plans(job_settings(job, project), source, [job.model])

    cases = both_kinds(path, yaml.safe_load(JOBS), 30)
    assert len(refusals(cases, use, project)) > len(cases) / 2
    path.write_bytes("# \u00b5m".encode("latin-1") + JOBS.encode())
    with pytest.raises(InputError, match=r"jobs.yaml is not UTF-8 text"):
        read_jobs(path)


KEYS = ("seeds", "models.unet2.network", "models.unet2.network.dropout", "")
BROKEN = (
    "[0",
    "{",
    "*none",
    "!!int x",
    "!!binary -",
    "&a [*a]",
    "\x00",
    "\ud800",
    "9" * 5000,
    "- - -",
    "? [1]",
    "[" * 3000,
)


def test_odd_assignments(project, source):
    path = project / "params.yaml"
    texts = [*BROKEN, *(as_yaml(value).removesuffix("...\n") for value in ODD_VALUES)]
    refused = []
    for key in KEYS:
        for text in texts:

            def use(assignment=f"{key}={text}"):
                settings = load_settings(path, [assignment])
                check_plans(settings, source, settings.benchmark)

            refused += refusals([(f"{key}={text[:20]}", lambda: None)], use, project)
    assert len(refused) > len(KEYS) * len(texts) * 0.8


def test_the_commands_refuse_damaged_settings(project, emseg, monkeypatch):
    monkeypatch.chdir(project)
    path = project / "params.yaml"
    for name, prepare in both_kinds(path, read_yaml(path), 8):
        prepare()
        before = files_of(project)
        # Should the damage be none, the model does not exist.
        code, out, err = emseg("train", "unet9")
        assert (code, out, err.count("\n")) == (2, "", 1), name
        assert err.startswith("emseg: "), name
        assert files_of(project) == before, name
