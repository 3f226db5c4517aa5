"""A model as a package of BioImage.IO, format 0.5: the ONNX file, test tensors, a cover, and what is known of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import warnings
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from emseg.errors import InputError, RunError
from emseg.files import atomic_path
from emseg.inference.predictor import Predictor
from emseg.registry.export.graph import least_side
from emseg.registry.export.model import ModelToExport
from emseg.registry.export.onnx_file import (
    LARGEST_DIFFERENCE,
    OPSET,
    artificial_sections,
    channel_names,
    export_graph,
    require_packages,
    require_same,
    require_whole_sections,
)
from emseg.text import plain

SECTION, INTERIOR = "section", "interior"
_SIDE = 256
"""Of the test tensors, and of both halves of the cover."""
_TAGS = ("electron-microscopy", "2d", "brain", "cell-membrane", "neurons", "semantic-segmentation", "pytorch", "emseg")


def require_bioimageio() -> None:
    """Refuse to begin without the packages that write and test the format.

    Raises:
        InputError: one is missing, or they do not work together.
    """
    require_packages("bioimageio", "onnx", "onnxscript", "onnxruntime", "bioimageio.core")
    major, minor, *_ = map(int, re.findall(r"\d+", version("pydantic")))
    if (major, minor) >= (2, 14):
        raise InputError(
            f"bioimageio.core {version('bioimageio.core')} does not work with pydantic {version('pydantic')}; "
            "`pip install 'emseg[bioimageio]'`, which takes one below 2.14"
        )


def write_bioimageio(model: ModelToExport, path: Path, licence: str | None, authors: list[str]) -> float:
    """Write a package that passes the tests of bioimageio.core and gives what emseg predicts.

    Args:
        model: to write.
        path: of the zip file.
        licence: SPDX identifier; None: that of the data.
        authors: names; none: who git says is at work.

    Returns:
        The largest difference of a probability to what emseg predicts, on sections of several sizes.

    Raises:
        InputError: packages are missing, no licence or author is known, or the recipe predicts in a way that a graph
            cannot.
        RunError: the network cannot be exported, the package fails its test, or the disk is full.
    """
    require_bioimageio()
    require_whole_sections(model)
    licence = _licence(model, licence)
    authors = authors or _user_of_git()
    predictor = model.predictor()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        export_graph(model, folder / "weights.onnx")
        difference = require_same(predictor, folder / "weights.onnx")
        sections = artificial_sections(predictor, max(_SIDE, least_side(predictor.network)))
        probability = predictor.section(list(sections))
        np.save(folder / "test_input.npy", sections[None])
        np.save(folder / "test_output.npy", probability[None, None])
        _write_cover(folder / "cover.png", sections[len(sections) // 2], probability, predictor)
        (folder / "README.md").write_text(_readme(model), encoding="utf-8")
        _write_package(_description(model, predictor, folder, licence, authors), folder / "package.zip")
        with atomic_path(path) as target:
            shutil.copyfile(folder / "package.zip", target)
    return difference


def _write_package(values: dict[str, Any], path: Path) -> None:
    import bioimageio.core
    from bioimageio.spec import ValidationContext, save_bioimageio_package
    from bioimageio.spec.model.v0_5 import ModelDescr

    try:
        with warnings.catch_warnings(), ValidationContext(log_warnings=False):
            warnings.simplefilter("ignore")
            save_bioimageio_package(ModelDescr.model_validate(values), output_path=path)
            summary = bioimageio.core.test_model(path)
    except ValueError as error:
        raise RunError(f"the model cannot be described as BioImage.IO wants it ({plain(error)[:300]})") from error
    if summary.status != "passed":
        wrong = [f"{'.'.join(map(str, fault.loc))}: {fault.msg}" for part in summary.details for fault in part.errors]
        raise RunError(f"the package does not pass the test of bioimageio.core ({plain('; '.join(wrong))[:300]})")


def _description(
    model: ModelToExport, predictor: Predictor, folder: Path, licence: str, authors: list[str]
) -> dict[str, Any]:
    """What the format wants to know of a model, as values of its ModelDescr; no addresses, which would be looked up."""
    network, normalization = predictor.network, predictor.normalization
    assert normalization is not None
    data = model.data
    voxel = data.voxel_size_nm if data else None
    cite = [{"text": each.text, "doi": each.doi} for each in data.citations if each.doi] if data else []
    space = [{"type": "space", "id": axis} for axis in "yx"]
    for axis, side in zip(space, voxel[1:] if voxel else (), strict=False):
        axis |= {"unit": "nanometer", "scale": side}  # type: ignore[dict-item]
    # The format allows a hundredth of the largest output.
    tolerance = min(LARGEST_DIFFERENCE, float(np.load(folder / "test_output.npy").max()) / 128)
    sizes = {"min": least_side(network), "step": 1}
    values: dict[str, Any] = {
        "format_version": "0.5.12",
        "type": "model",
        "name": _allowed(f"emseg {model.run.name}"),
        "description": f"Segments neuronal membranes in electron-microscopy sections: grey levels of whole sections "
        f"in, probability of cell interior out. {model.cells}",
        "authors": [{"name": name} for name in authors],
        "license": licence,
        "cite": cite,
        "tags": [*_TAGS, *(["unet"] if "unet" in model.run.settings.architecture else [])],
        "documentation": {"source": folder / "README.md"},
        "covers": [{"source": folder / "cover.png"}],
        "training_data": {
            "type": "dataset",
            "format_version": "0.3.0",
            "name": _allowed(data.title if data else model.run.dataset),
            "description": f"Digest {model.run.data_digest}.",
            "cite": cite,
        },
        "inputs": [
            {
                "id": SECTION,
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": channel_names(network.neighbours)},
                    *({**axis, "size": sizes} for axis in space),
                ],
                "data": {"type": "float32", "range": (normalization.low, normalization.high)},
                "test_tensor": {"source": folder / "test_input.npy"},
            }
        ],
        "outputs": [
            {
                "id": INTERIOR,
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": [INTERIOR]},
                    *({**axis, "size": {"tensor_id": SECTION, "axis_id": axis["id"]}} for axis in space),
                ],
                "data": {"type": "float32", "range": (0.0, 1.0)},
                "test_tensor": {"source": folder / "test_output.npy"},
            }
        ],
        "weights": {"onnx": {"source": folder / "weights.onnx", "opset_version": OPSET}},
        "config": {
            "bioimageio": {
                "model_parameter_count": model.run.parameters,
                "reproducibility_tolerance": [
                    {
                        "relative_tolerance": LARGEST_DIFFERENCE,
                        "absolute_tolerance": tolerance,
                        "mismatched_elements_per_million": 0,
                    }
                ],
            },
            "emseg": {"digest": model.digest, "threshold": model.threshold},
        },
    }
    if model.version and (number := re.search(r"\d+$", model.version)):
        values["version"] = number[0]
    return values


def _allowed(name: str) -> str:
    """A name in the letters that the format allows."""
    return re.sub(r"[^\w+\- ()]", "-", name, flags=re.ASCII)[:128].ljust(5, "-")


def _licence(model: ModelToExport, wanted: str | None) -> str:
    """SPDX identifier of the licence.

    Raises:
        InputError: it is not one, or none is given and that of the data has none.
    """
    from bioimageio.spec.generic.v0_3 import LicenseId

    stated = model.data.licence if model.data else None
    text = (wanted or stated or "").strip()
    for written in (text, text.replace(" ", "-")):
        with suppress(ValueError):
            return str(LicenseId(written))
    if wanted is not None:
        raise InputError(f"--licence {plain(wanted)} is no SPDX identifier, such as CC-BY-4.0 or MIT")
    said = f"has no SPDX identifier ({plain(stated)[:80]})" if stated else "is not known"
    raise InputError(f"the licence of the data {said}; choose that of the model, such as --licence CC-BY-4.0")


def _user_of_git() -> list[str]:
    try:
        asked = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, timeout=20, check=True)
        name = plain(asked.stdout)
    except (OSError, subprocess.SubprocessError):
        name = ""
    if not name:
        raise InputError("no author is known; give one or more with --author NAME, or set git's user.name")
    return [name]


def _write_cover(path: Path, section: np.ndarray, probability: np.ndarray, predictor: Predictor) -> None:
    """A section beside its probability, 8 bit."""
    from imagecodecs import png_encode

    assert predictor.normalization is not None
    pair = np.concatenate([predictor.normalization(section), probability], axis=1)
    path.write_bytes(png_encode(np.round(pair * 255).astype(np.uint8)))


def _readme(model: ModelToExport) -> str:
    neighbours = model.run.settings.network.overrides().get("neighbours", 0)
    several = (
        f"""
The channels are {", ".join(channel_names(neighbours))}: the section to segment in the middle, between those before and
after it. At the ends of a stack its last section stands in for those that are missing.
"""
        if neighbours
        else ""
    )
    return f"""{model.card().rstrip()}

## Input and output

Give whole sections with the grey levels that they have; normalisation is inside. Do not cut them into blocks: context
is mirrored at the borders of what comes in. Out comes the probability of cell interior. {model.cells}
{several}
## Validation

The scores above are means over test sections that were not trained on, unless the card says otherwise. To check the
model on your own sections, label a few of them, and compare V_rand, V_info and pixel error with the labels
(`emseg.metrics`). The test tensors of this package are artificial sections and what emseg predicts for them.
"""
