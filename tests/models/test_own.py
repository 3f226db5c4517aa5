"""A network of a project's own, from a file that params.yaml names."""

import json

import pytest
import yaml

from emseg.data.io.stack import write_stack
from emseg.models import list_models
from emseg.models.own import load_networks, origin_of
from emseg.project.initialise import templates
from emseg.project.stages import run_stage
from emseg.records.record import RunRecord

EXAMPLE = (templates() / "networks.py.example").read_text()


@pytest.fixture
def project(tmp_path, tiny_params, source_folder, store):
    source_folder.rename(tmp_path / "data-of-lab")
    (tmp_path / "data/sources").mkdir(parents=True)
    (tmp_path / "data-of-lab").rename(tmp_path / "data/sources/cortex")
    values = yaml.safe_load(tiny_params.read_text()) | {"code": "networks.py", "benchmark": ["unet2", "two_layers"]}
    values["data"]["source"] = "cortex"
    values["models"]["two_layers"] = {"network": {"base_channels": 2}, "loss": "bce"}
    tiny_params.write_text(yaml.safe_dump(values, sort_keys=False))
    (tmp_path / "networks.py").write_text(EXAMPLE)
    return tmp_path


def test_it_trains_and_predicts_where_its_file_is(project, emseg, stack):
    assert emseg("train", "two_layers")[0] == 0
    run = "runs/single/two_layers-fold0-seed0"
    found = RunRecord.open(run).read()
    assert found.lineage.networks_file == "networks.py"
    assert found.networks_sha256 == found.lineage.networks_sha256 == origin_of("two_layers").sha256
    assert emseg("calibrate", run)[0] == emseg("evaluate", run)[0] == 0
    write_stack(project / "new.tif", stack[0][:2])
    assert emseg("predict", "new.tif", "out.tif", "--model", run)[0] == 0
    # Changed, it is another network: the run is not predicted with, and not kept for trained.
    (project / "networks.py").write_text(EXAMPLE + "# a comment\n")
    code, _, err = emseg("predict", "new.tif", "out.tif", "--overwrite", "--model", run)
    assert code == 2
    assert "networks.py is not as it was" in err
    code, _, err = emseg("train", "two_layers")
    assert code == 2
    assert "networks_sha256" in err
    # Absent, it is asked for.
    (project / "params.yaml").write_text((project / "params.yaml").read_text().replace("networks.py", "null"))
    code, _, err = emseg("predict", "new.tif", "out.tif", "--overwrite", "--model", run)
    assert code == 2
    assert "two_layers comes from a file of the project" in err
    assert err.count("\n") == 1


def test_only_what_it_trains_is_stale_when_it_changes(project):
    run_stage("recipes")
    recipes = {path.name: path.read_bytes() for path in (project / "data/recipes").iterdir()}
    (project / "networks.py").write_text(EXAMPLE + "# a comment\n")
    run_stage("recipes")
    changed = {path.name for path in (project / "data/recipes").iterdir() if path.read_bytes() != recipes[path.name]}
    assert changed == {"two_layers.json"}
    assert "networks_sha256" not in json.loads(recipes["unet2.json"])


def test_a_file_that_dvc_does_not_watch_is_refused(project, emseg):
    (project / "dvc.yaml").write_text((templates() / "dvc.yaml").read_text())
    assert emseg("stage", "recipes")[0] == 0
    (project / "networks.py").rename(project / "ours.py")
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("networks.py", "ours.py"))
    code, _, err = emseg("stage", "recipes")
    assert code == 2
    assert "ours.py, which stage recipes in dvc.yaml does not depend on" in err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "networks.py, which params.yaml names as code, cannot be read"),
        ("class (:\n", "networks.py, line 1:"),
        ("x = 1\n", "registers no network"),
        ("\nraise KeyError('x')\n", "networks.py, line 2: KeyError"),
        ("import sys\nsys.exit(0)\n", "line 2: SystemExit"),
        ("import no_such_package\n", "line 1: ModuleNotFoundError"),
        (EXAMPLE.replace('"two_layers"', '"unet2"'), "already in the catalog"),
        (EXAMPLE + "\nraise RuntimeError\n", "RuntimeError"),
    ],
)
def test_a_file_that_is_none_is_one_sentence(project, emseg, content, sentence):
    known = list_models()
    (project / "networks.py").unlink()
    if content is not None:
        (project / "networks.py").write_text(content)
    for command in (["train", "unet2"], ["stage", "prepare"]):
        code, out, err = emseg(*command)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert sentence in err
    assert [name for name in known if name != "two_layers"] == [name for name in list_models() if name != "two_layers"]
    assert not (project / "runs").exists()


def test_another_file_takes_the_place_of_the_first(tmp_path):
    (tmp_path / "a.py").write_text(EXAMPLE)
    (tmp_path / "b.py").write_text(EXAMPLE.replace("two_layers", "others"))
    load_networks("a.py", tmp_path)
    assert "two_layers" in list_models()
    load_networks("b.py", tmp_path)
    assert "two_layers" not in list_models()
    assert origin_of("others").name == "b.py"
    assert origin_of("unet2") is None


@pytest.mark.parametrize(
    ("written", "instead", "sentence"),
    [
        ("    margin = 0\n", "", "two_layers lacks margin; emseg.models.Network says"),
        ("class TwoLayers(Network)", "class TwoLayers(nn.Module)", "derive its class from emseg.models.Network"),
    ],
)
def test_a_class_that_is_no_network_is_one_sentence(project, emseg, written, instead, sentence):
    assert written in EXAMPLE
    (project / "networks.py").write_text(EXAMPLE.replace(written, instead))
    code, out, err = emseg("train", "two_layers")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence in err
    assert not (project / "runs").exists()
