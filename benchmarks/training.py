"""Training as emseg does it, tracking included, against the plain loop.

The plain loop has the default layout, float32 and an optimiser that is not fused. Both train the same network on
crops of one size. Rates are of convolution arithmetic; the yardsticks are a large matrix product and a large
convolution on the same device, measured in the same run.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812

from benchmarks.common import print_machine, seconds, sections
from emseg.data.normalization import Normalization
from emseg.data.sources import Source
from emseg.inference.device import autocast, available_device
from emseg.models import build_model
from emseg.records.record import RunRecord
from emseg.settings import Settings, profile_values, validate_settings
from emseg.tracking.live import live_mirror
from emseg.training.cost import flop_per_crop
from emseg.training.plan import RunPlan
from emseg.training.run import train_model

MODELS = ("dmcn", "weighted_unet", "unet2", "residual_unet", "deeply_supervised_unet")
COMPILED = "unet2"
STEPS = 24


def settings_for(model: str) -> Settings:
    """Profile best, cut to two epochs of a few steps."""
    changes = {
        "protocol": {"validation": 1},
        "augment": {"count": 2},
        "training": {"epochs": 2, "images_per_epoch": 8 * STEPS, "warmup_epochs": 0.0},
        "benchmark": [model],
        "models": {model: {"loss": "bce", "weight_map": None}},
    }
    return validate_settings(profile_values(Path(), "best", changes), "")


def plain_step(model: str, settings: Settings, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Seconds of one step of the plain loop."""
    torch.manual_seed(0)
    network = build_model(model, **settings.models[model].network.overrides()).train().to(images.device)
    optimizer = torch.optim.AdamW(network.parameters(), fused=False, foreach=False)

    def step() -> None:
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(network(images), labels).backward()
        optimizer.step()
        _wait(images.device)

    return seconds(step, 5)


def compilation(model: str, settings: Settings, images: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """How much faster our step is when compiled, and the seconds that compiling takes; data loading left out."""
    recipe = settings.recipe(model)
    network = build_model(model, **settings.models[model].network.overrides()).train().to(images.device)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    images = images.contiguous(memory_format=torch.channels_last)

    def step(logits: Callable[[torch.Tensor], list[torch.Tensor]]) -> None:
        optimizer.zero_grad()
        with autocast(images.device, recipe.precision):
            predicted = logits(images)
        torch.stack([F.binary_cross_entropy_with_logits(each.float(), labels) for each in predicted]).sum().backward()
        optimizer.step()
        _wait(images.device)

    compiled = torch.compile(network.training_logits)
    started = time.perf_counter()
    step(compiled)
    compiling = time.perf_counter() - started
    return seconds(lambda: step(network.training_logits), 9) / seconds(lambda: step(compiled), 9), compiling


def our_epoch(model: str, settings: Settings, source: Source) -> tuple[float, float]:
    """Seconds of the second epoch of a run, validation and checkpoint included, and of telling MLflow about it."""
    plan = RunPlan(model, 0, 0, settings, source)
    with tempfile.TemporaryDirectory() as folder, live_mirror() as mirror:
        trained, told = [], []

        def after_epoch(record: RunRecord) -> None:
            trained.append(time.perf_counter())
            mirror(record)
            told.append(time.perf_counter())

        train_model(plan, Path(folder) / "run", after_epoch=after_epoch)
    return trained[2] - told[1], told[2] - trained[2]


def yardsticks(device: torch.device) -> dict[str, float]:
    """FLOP/s of a large product and a large convolution, in float32 and bfloat16."""
    rates = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a = torch.randn(4096, 4096, device=device, dtype=dtype)

        def product(a: torch.Tensor = a) -> None:
            a @ a
            _wait(device)

        rates[f"{name} product"] = 2 * 4096**3 / seconds(product, 5)
        x = torch.randn(4, 128, 128, 128, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        w = torch.randn(128, 128, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)

        def convolution(x: torch.Tensor = x, w: torch.Tensor = w) -> None:
            F.conv2d(x, w, padding=1)
            _wait(device)

        rates[f"{name} convolution"] = 2 * 9 * 128 * 128 * 4 * 128**2 / seconds(convolution, 5)
    return rates


def main() -> None:
    """Print every model's throughput."""
    device = available_device()
    store = tempfile.TemporaryDirectory()
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{store.name}/mlflow.db"
    print_machine()
    images, labels, name = sections(8)
    empty = images[:0]
    source = Source("benchmark", images, labels, empty, labels[:0])
    rates = yardsticks(device)
    print("yardsticks: " + ", ".join(f"{what} {rate / 1e9:.0f} GFLOP/s" for what, rate in rates.items()))
    best_float32 = max(rates["float32 product"], rates["float32 convolution"])
    print(f"profile best, batches of 4 (plain loop 8) crops of 256 x 256 of the {name}, warped as they are cut")
    crops = torch.from_numpy(Normalization(0, 255)(images[:, None, :256, :256])).to(device)
    truth = torch.from_numpy(labels[:, None, :256, :256]).float().to(device)
    # Before any training of ours, which changes how this process keeps memory.
    plain_rates = {model: 8 / plain_step(model, settings_for(model), crops, truth) for model in MODELS}
    for model, plain in plain_rates.items():
        settings = settings_for(model)
        flop = flop_per_crop(model, settings.models[model].network.overrides(), 256, 256)
        epoch, tracking = our_epoch(model, settings, source)
        ours = 8 * STEPS / epoch
        images_per_epoch = profile_values(Path(), "best", {})["training"]["images_per_epoch"]
        full_epoch = images_per_epoch / ours
        print(
            f"{model}: {ours:.1f} images/s, {ours * flop / 1e9:.0f} GFLOP/s "
            f"({ours * flop / best_float32:.0%} of the float32 yardstick); "
            f"plain loop {plain:.1f} images/s, ratio {ours / plain:.2f}; "
            f"MLflow {tracking * 1000:.0f} ms, {tracking / full_epoch:.2%} of an epoch of {images_per_epoch} images"
        )
        if model == COMPILED:
            ratio, compiling = compilation(model, settings, crops[:4], truth[:4])
            print(f"{model} compiled (torch.compile): {ratio:.2f} times as fast, after {compiling:.0f} s of compiling")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
