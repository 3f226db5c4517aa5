"""Two processes must train as one does."""

import os
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from emseg.inference import predict
from emseg.inference.trained import load_network
from emseg.records.record import RunRecord
from emseg.settings import load_settings, merge, read_yaml

DISTRIBUTED = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(params=["none", "batch"])
def params(tiny_params, request):
    # Each process draws its own dropout; here it is off.
    values = read_yaml(tiny_params)
    merge(
        values,
        {
            "training": {
                "augmentation": "fresh",
                "weight_average": 0.9,
                "early_stopping": {"metric": "pixel_error", "patience": 1},
                "epochs": 6,
                "learning_rate": 0.02,
            },
            "models": {"weighted_unet": {"network": {"normalization": request.param, "dropout": 0.0}}},
        },
    )
    tiny_params.write_text(yaml.safe_dump(values, sort_keys=False))
    return tiny_params


def run(command, script, *arguments, **variables):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    # A process that waits for one that has failed waits for half an hour.
    return subprocess.run(
        [*command, script, *arguments], env=environment, cwd=script.parent, capture_output=True, text=True, timeout=300
    )


def test_two_processes_agree_with_one(tmp_path, params, source_folder, source, train_script):
    records = []
    for name, command in (("one", [sys.executable]), ("two", DISTRIBUTED)):
        done = run(command, train_script, params, source_folder.parent, tmp_path / name)
        assert done.returncode == 0, done.stderr
        records.append(RunRecord(tmp_path / name))
        assert done.stderr.count("epoch 1/6") == 1
    one, two = ([{k: row[k] for k in row if k != "seconds"} for row in record.history()] for record in records)
    assert len(one) == len(two)
    for before, after in zip(one, two, strict=True):
        assert before == pytest.approx(after, rel=1e-3)
    networks = [load_network(record) for record in records]
    first, second = (predict(network, source.images, normalization=grey) for network, grey in networks)
    assert second == pytest.approx(first, abs=5e-3)
    # A bias before batch normalisation does nothing, and goes where rounding sends it.
    if records[0].read().settings.network.normalization == "none":
        weights = [load_file(record.weights_file) for record in records]
        for name, value in weights[0].items():
            torch.testing.assert_close(value, weights[1][name], atol=1e-4, rtol=1e-3)


ELSEWHERE = """
import os
folder = Path(sys.argv[3] + ("" if os.environ["RANK"] == "0" else "-elsewhere"))

def stop(record):
    if "STOP" in os.environ and len(record.history()) == 2:
        sys.exit("stopped")

train_model("""


@pytest.mark.parametrize("params", ["batch"], indirect=True)
def test_only_the_first_process_needs_the_record_also_to_go_on(tmp_path, params, source_folder, train_script):
    where = (params, source_folder.parent)
    assert run(DISTRIBUTED, train_script, *where, tmp_path / "together").returncode == 0
    script = train_script.read_text().replace("train_model(", ELSEWHERE)
    train_script.write_text(script.replace("Path(sys.argv[3]))", "folder, after_epoch=stop)"))
    assert run(DISTRIBUTED, train_script, *where, tmp_path / "apart", STOP="1").returncode != 0
    assert len(RunRecord(tmp_path / "apart").history()) == 2
    done = run(DISTRIBUTED, train_script, *where, tmp_path / "apart")
    assert done.returncode == 0, done.stderr
    together, apart = (RunRecord(tmp_path / name) for name in ("together", "apart"))
    assert apart.read().resumed == 1
    assert together.weights_file.read_bytes() == apart.weights_file.read_bytes()
    assert not (tmp_path / "apart-elsewhere").exists()


GRADIENTS = """
import sys, torch
from emseg.models import build_model
from emseg.settings import WeightMapSettings
from emseg.training.distributed import join_ranks
from emseg.training.losses import make_loss

def gradients(kind, ignored, ranks):
    torch.manual_seed(0)
    network = build_model("unet2", base_channels=2, depth=1, dropout=0.0, normalization="batch")
    images, separations = torch.randn(4, 1, 16, 16), 30 * torch.rand(4, 1, 16, 16)
    labels = (torch.rand(4, 1, 16, 16) < torch.tensor([0.1, 0.4, 0.9, 1.0])[:, None, None, None]).float()
    ignore = torch.rand(4, 1, 16, 16) < torch.tensor([0.9, 0.1, 0.5, 0.2])[:, None, None, None]
    part = ranks.part(len(images))
    training_logits = ranks.training_logits(network)
    (logits,) = training_logits(images[part])
    loss = make_loss(kind, WeightMapSettings(w0=5, sigma=4), 0.6, 1.0, ranks)(
        logits, labels[part], separations[part], ignore[part] if ignored else None
    )
    loss.backward()
    mean = ranks.mean(loss.detach().clone())
    return {"loss": mean, **{name: weight.grad for name, weight in network.named_parameters()}}

with join_ranks(torch.device("cpu")) as ranks:
    found = {
        f"{kind}, {ignored} ignored": gradients(kind, ignored == "some", ranks)
        for kind in ("bce", "weighted_bce", "bce_dice")
        for ignored in ("some", "none")
    }
    if ranks.leads:
        torch.save(found, sys.argv[1])
"""


def test_loss_and_gradients_of_two_processes_are_those_of_one(tmp_path):
    script = tmp_path / "gradients.py"
    script.write_text(GRADIENTS)
    found = []
    for name, command in (("one", [sys.executable]), ("two", DISTRIBUTED)):
        done = run(command, script, tmp_path / name)
        assert done.returncode == 0, done.stderr
        found.append(torch.load(tmp_path / name, weights_only=True))
    one, two = found
    assert len(one) == 6
    assert one.keys() == two.keys()
    for case, values in one.items():
        for name, value in values.items():
            torch.testing.assert_close(two[case][name], value, atol=1e-5, rtol=1e-4, msg=f"{case}: {name}")


@pytest.mark.parametrize("params", ["none"], indirect=True)
def test_a_batch_that_cannot_be_shared_is_refused(tmp_path, params, source_folder, train_script):
    text = params.read_text()
    assert "batch: 4" in text
    params.write_text(text.replace("batch: 4", "batch: 3", 1))
    load_settings(params)
    done = run(DISTRIBUTED, train_script, params, source_folder.parent, tmp_path / "run")
    assert done.returncode != 0
    assert "must be multiples of 2" in done.stderr
    assert not (tmp_path / "run").exists()
