"""Models that travel give elsewhere what emseg predicts here."""

import shutil
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest
import torch
import yaml
from evaluated import rewrite
from safetensors.torch import save_file

from emseg.data.io.stack import read_stack, write_stack
from emseg.data.normalization import Normalization
from emseg.errors import InputError, RunError
from emseg.inference.predictor import Predictor
from emseg.inference.trained import load_network
from emseg.models import build_model
from emseg.project.initialise import templates
from emseg.records.checked import file_digest
from emseg.records.record import RunRecord
from emseg.registry import package
from emseg.registry.export.onnx_file import require_same
from emseg.registry.manifest import MANIFEST_FILE, Manifest, digests_of_files, write_manifest
from emseg.registry.package import PACKAGE_FILES, package_digest, segmenter_of_run

NETWORKS = {
    "dmcn": {"base_channels": 2},
    "unet1": {"base_channels": 2, "depth": 1},
    "weighted_unet": {"base_channels": 2, "depth": 2},
    "unet2": {"base_channels": 2, "depth": 2},
    "residual_unet": {"base_channels": 2, "depth": 1, "neighbours": 1},
    "deeply_supervised_unet": {"base_channels": 2, "depth": 1},
}
CARD = {
    "name": "cortex",
    "title": "Cortex",
    "voxel_size_nm": [50.0, 4.0, 5.0],
    "licence": "CC BY-NC-SA 3.0",
    "citations": [{"text": "Cardona et al. 2010", "doi": "10.1371/journal.pbio.1000502"}, {"text": "a thesis"}],
    "recognised": None,
}
VIEWS = {"weighted_unet", "residual_unet"}
SIZES = [(37, 53), (64, 48), (41, 41)]


@pytest.fixture
def run_of(evaluated):
    """A function that gives the folder of an evaluated run of any network with random weights."""

    def make(name, network, **recipe):
        record = evaluated()
        run = record.read()
        torch.manual_seed(2)
        built = build_model(name, **network)
        for parameter in built.parameters():
            # As they are drawn, probabilities hardly differ from one half.
            torch.nn.init.normal_(parameter, std=2 * parameter[0].numel() ** -0.5)
        save_file(built.state_dict(), record.weights_file)
        settings = run.settings.model_dump() | {"architecture": name, "network": network}
        settings["training"] |= recipe
        digest = file_digest(record.weights_file)
        record.update(
            settings=settings, weights_sha256=digest, normalization={"low": 20.0, "high": 210.0}, dataset_card=CARD
        )
        rewrite(record.folder.parent)
        return record.folder.parent

    return make


@pytest.fixture
def exported(evaluated, emseg, tmp_path):
    """The folder that a run was exported as, and the run."""
    run, folder = evaluated().folder.parent, tmp_path / "exported"
    code, _, err = emseg("export", run, "--out", folder)
    assert code == 0, err
    return folder, run


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_and_bioimageio_give_what_emseg_predicts(name, run_of, emseg, tmp_path, monkeypatch):
    core, onnxruntime = pytest.importorskip("bioimageio.core"), pytest.importorskip("onnxruntime")
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("asked the network"))
    run = run_of(name, NETWORKS[name], test_time_augmentation=name in VIEWS)
    path = tmp_path / "model.zip"
    # The command runs the test of bioimageio.core.
    code, out, err = emseg("export", run, "--to", "bioimageio", "--out", path, "--author", "Ada")
    assert (code, err) == (0, "")
    assert "of what emseg predicts" in out
    with zipfile.ZipFile(path) as files:
        assert sorted(files.namelist()) == sorted(
            ["README.md", "cover.png", "rdf.yaml", "test_input.npy", "test_output.npy", "weights.onnx"]
        )
        assert files.getinfo("cover.png").file_size < 500_000
        files.extract("weights.onnx", tmp_path)
        description = yaml.safe_load(files.read("rdf.yaml"))
    assert (description["license"], description["authors"]) == ("CC-BY-NC-SA-3.0", [{"name": "Ada"}])
    assert [each["doi"] for each in description["cite"]] == ["10.1371/journal.pbio.1000502"]
    assert [axis.get("scale") for axis in description["inputs"][0]["axes"]] == [None, None, 4.0, 5.0]

    network, normalization = load_network(RunRecord.open(run))
    predictor = Predictor(network, normalization, test_time_augmentation=name in VIEWS)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(tmp_path / "weights.onnx", options)
    random = np.random.default_rng(1)
    for size in SIZES:
        images = random.integers(0, 256, (2, network.channels, *size)).astype(np.uint8)
        wanted = np.stack([predictor.section(list(image)) for image in images])[:, None]
        assert wanted.std() > 0.05  # else anything would do
        assert np.abs(session.run(None, {"images": images.astype(np.float32)})[0] - wanted).max() < 1e-4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = core.predict(model=path, inputs=images).members["interior"].data
    assert np.abs(found.to_numpy() - wanted).max() < 1e-4


def test_an_onnx_file_says_what_it_is_and_not_where_it_was_made(run_of, emseg, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    run, path = run_of("unet1", NETWORKS["unet1"]), tmp_path / "model.onnx"
    code, out, err = emseg("export", run, "--to", "onnx", "--out", path)
    assert (code, err) == (0, "")
    told = {each.key: each.value for each in onnx.load(path).metadata_props}
    record = RunRecord.open(run).read()
    assert told["name"] == record.name
    assert told["data"] == f"Cortex, digest {record.data_digest}"
    assert told["digest"][:12] in out
    assert (told["licence"], told["cite"]) == (
        CARD["licence"],
        "Cardona et al. 2010, doi:10.1371/journal.pbio.1000502; a thesis",
    )
    assert float(told["threshold"]) == pytest.approx(segmenter_of_run(run).threshold)
    assert b"emseg/" not in path.read_bytes()
    code, _, err = emseg("export", run, "--to", "onnx", "--out", path)
    assert (code, err) == (2, f"emseg: {path} exists; give --overwrite to replace it\n")
    # A file that gives something else is refused.
    predictor = segmenter_of_run(run).predictor
    with pytest.raises(RunError, match="does not give what emseg predicts"):
        require_same(Predictor(predictor.network, Normalization(0.0, 255.0)), path)


def test_an_exported_folder_predicts_without_a_registry(exported, emseg, stack, tmp_path):
    folder, run = exported
    write_stack(tmp_path / "new.tif", stack[0][:2, :40, :33])
    assert emseg("predict", tmp_path / "new.tif", tmp_path / "run.tif", "--model", run, "--kind", "cells")[0] == 0
    hidden = "import sys; sys.modules.update(dict.fromkeys(('mlflow', 'optuna', 'dvc', 'onnx', 'bioimageio')))"
    code = f"{hidden}; from emseg.cli import main; main()"
    options = ["--model", "exported", "--kind", "cells"]
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", "new.tif", "folder.tif", *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(read_stack(tmp_path / "folder.tif"), read_stack(tmp_path / "run.tif"))
    # Exported once more it is the same.
    assert emseg("export", folder, "--out", tmp_path / "again")[0] == 0
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()
    }


def test_a_changed_missing_or_added_file_is_refused_before_any_is_loaded(exported, emseg, tmp_path, monkeypatch):
    folder, _ = exported
    monkeypatch.setattr(package, "open_package", lambda *_: pytest.fail("loaded"))
    for name in (*PACKAGE_FILES, MANIFEST_FILE):
        for kind in ("changed", "missing"):
            copy = tmp_path / f"{name}-{kind}"
            shutil.copytree(folder, copy)
            if kind == "missing":
                (copy / name).unlink()
            else:
                content = bytearray((copy / name).read_bytes())
                content[len(content) // 2] ^= 1
                (copy / name).write_bytes(content)
            for command in (("predict", "a.tif", "b.tif", "--model", copy), ("export", copy, "--out", tmp_path / "x")):
                code, _, err = emseg(*command)
                assert (code, err.count("\n")) == (2, 1)
                assert name in err or command[0] == "predict"
            with pytest.raises(InputError, match=name):
                segmenter_of_run(copy)
    (folder / "more.py").touch()
    with pytest.raises(InputError, match=r"more\.py, which was not exported"):
        segmenter_of_run(folder)
    assert not (tmp_path / "x").exists()


def test_files_that_fit_their_manifest_but_not_each_other_are_refused(exported):
    folder, _ = exported
    with np.load(folder / "check.npz") as check:
        np.savez(folder / "check.npz", image=check["image"], probability=1 - check["probability"])
    names = list(PACKAGE_FILES)
    values = {"name": "a", "version": None, "needs": None, "digest": package_digest(folder)}
    write_manifest(folder, Manifest(**values, files=digests_of_files(folder, names)))
    with pytest.raises(InputError, match="does not reproduce"):
        segmenter_of_run(folder)


def test_a_network_of_a_project_says_what_its_folder_needs(evaluated, emseg, tmp_path, monkeypatch):
    record = evaluated()
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    (project / "networks.py").write_text((templates() / "networks.py.example").read_text())
    (project / "params.yaml").write_text("code: networks.py\n")
    sha256 = file_digest(project / "networks.py")
    run = record.read()
    from emseg.models.own import load_networks

    load_networks("networks.py")
    save_file(build_model("two_layers", base_channels=2).state_dict(), record.weights_file)
    settings = run.settings.model_dump() | {"architecture": "two_layers", "network": {"base_channels": 2}}
    lineage = run.lineage.model_copy(update={"networks_file": "networks.py", "networks_sha256": sha256})
    record.update(
        settings=settings, lineage=lineage, networks_sha256=sha256, weights_sha256=file_digest(record.weights_file)
    )
    rewrite(record.folder.parent)
    code, _, err = emseg("export", record.folder.parent, "--out", tmp_path / "own")
    assert code == 0
    assert "comes from networks.py" in err
    assert err.count("\n") == 1
    assert segmenter_of_run(tmp_path / "own").name == str(tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="two_layers comes from a file of the project"):
        segmenter_of_run(tmp_path / "own")


def test_what_cannot_be_exported_is_one_sentence(evaluated, emseg, tmp_path, monkeypatch):
    run = evaluated().folder.parent
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").touch()
    for command, sentence in (
        ((run, "--to", "keras"), "--to is one of folder, onnx, bioimageio, not keras"),
        ((run, "--to", "onnx", "--out", "model.pb"), "to end in .onnx"),
        ((run, "--licence", "MIT"), "are for --to bioimageio"),
        ((run, "--out", "full"), "full exists; give --overwrite"),
        ((run, "--out", "full", "--overwrite"), "full holds files that emseg did not write (thesis.doc)"),
        (("nowhere",), "no model nowhere"),
    ):
        code, _, err = emseg("export", *command)
        assert (code, err.count("\n")) == (2, 1)
        assert sentence in err
    for form, missing, extra in (("onnx", "onnxscript", "export"), ("bioimageio", "bioimageio.core", "bioimageio")):
        for name in ("onnx", "onnxruntime", "onnxscript", "bioimageio.core"):
            monkeypatch.setitem(sys.modules, name, None if name == missing else sys)
        code, _, err = emseg("export", run, "--to", form)
        assert (code, err) == (2, f"emseg: this export needs {missing}; `pip install 'emseg[{extra}]'`\n")
    shutil.rmtree(run / "evaluation")
    assert emseg("export", run)[0] == 2
    assert not (tmp_path / "exports").exists()


def test_without_licence_author_or_one_graph_there_is_no_package(run_of, emseg, tmp_path, monkeypatch):
    pytest.importorskip("bioimageio.core")
    run = run_of("unet1", NETWORKS["unet1"])
    record = RunRecord.open(run)
    record.update(dataset_card=None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    command = ("export", run, "--to", "bioimageio")
    assert "the licence of the data is not known" in emseg(*command)[2]
    assert "--licence mine is no SPDX identifier" in emseg(*command, "--licence", "mine")[2]
    assert "give one or more with --author NAME" in emseg(*command, "--licence", "CC BY 4.0")[2]
    settings = record.read().settings.model_dump()
    settings["training"]["prediction"] = "average"
    record.update(settings=settings)
    rewrite(run)
    assert "predicts by training.prediction: average" in emseg(*command)[2]
