"""Models that travel give elsewhere what emseg predicts here."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from evaluated import rewrite
from safetensors.torch import save_file


from emseg.data.io.stack import read_stack, write_stack
from emseg.inference.predictor import Predictor
from emseg.models import build_model
from emseg.records.checked import file_digest
from emseg.registry.export.model import ModelToExport
from emseg.registry.manifest import MANIFEST_FILE
from emseg.registry.package import PACKAGE_FILES, segmenter_of_run

NETWORKS = {
    "dmcn": {"base_channels": 2},
    "unet1": {"base_channels": 2, "depth": 1},
    "weighted_unet": {"base_channels": 2, "depth": 2},
    "unet2": {"base_channels": 2, "depth": 2},
    "residual_unet": {"base_channels": 2, "depth": 1, "neighbours": 1},
    "deeply_supervised_unet": {"base_channels": 2, "depth": 1},
}


@pytest.fixture
def run(evaluated):
    """Folder of an evaluated tiny run."""
    return evaluated().folder.parent


@pytest.fixture
def model_of(evaluated, emseg, tmp_path):
    """A function that exports a run of any network with random weights as a folder: model_of(name, **recipe)."""

    def make(name, **recipe):
        record = evaluated()
        torch.manual_seed(0)
        network = build_model(name, **NETWORKS[name])
        # Weights as they are drawn give probabilities that hardly differ from one half.
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        save_file(network.state_dict(), record.weights_file)
        settings = record.read().settings.model_dump()
        settings |= {"architecture": name, "network": NETWORKS[name], "training": settings["training"] | recipe}
        digest = file_digest(record.weights_file)
        record.update(model=name, settings=settings, weights_sha256=digest, normalization={"low": 20.0, "high": 210.0})
        rewrite(record.folder.parent)
        return record.folder.parent

    return make


def sections_for(predictor, height, width):
    channels = predictor.network.channels
    return np.random.default_rng(1).integers(0, 256, (channels, height, width)).astype(np.uint8)


def test_x(model_of, emseg, tmp_path):
    run = model_of("residual_unet")
    print(run)
    for to in ("folder", "onnx", "bioimageio"):
        import time; t=time.time()
        print(emseg("export", run, "--to", to, "--out", f"/tmp/exp-try/m{dict(folder='',onnx='.onnx',bioimageio='.zip')[to]}", "--overwrite", *(["--licence", "MIT", "--author", "Ada"] if to == "bioimageio" else [])), time.time()-t)
    shutil.copytree(run, "/tmp/exp-try/run", dirs_exist_ok=True)
