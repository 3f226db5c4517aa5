"""A model as one ONNX file: raw grey levels in, probability of cell interior out."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from emseg.data.synthetic import make_synthetic
from emseg.errors import InputError, RunError
from emseg.files import atomic_path
from emseg.inference.predictor import WHOLE_SECTION_SIDE, Predictor
from emseg.models import Network
from emseg.registry.export.graph import WholeSections, average_views, example_images, least_side
from emseg.registry.export.model import ModelToExport
from emseg.text import plain

if TYPE_CHECKING:
    from onnx import ModelProto

INPUT, OUTPUT = "images", "probability"
OPSET = 20
LARGEST_DIFFERENCE = 1e-3
"""Of a probability, between the file and emseg."""


def require_packages(extra: str, *names: str) -> None:
    """Refuse to begin without the packages of an extra.

    Raises:
        InputError: one is not installed.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise InputError(f"this export needs {name}; `pip install 'emseg[{extra}]'`") from error


def require_onnx() -> None:
    """Refuse to begin without the packages that write and run ONNX files.

    Raises:
        InputError: one is missing.
    """
    require_packages("export", "onnx", "onnxscript", "onnxruntime")


def write_onnx(model: ModelToExport, path: Path) -> float:
    """Write a model as an ONNX file that gives what emseg predicts.

    Returns:
        The largest difference of a probability to what emseg predicts, on sections of several sizes.

    Raises:
        InputError: onnx, onnxscript or onnxruntime is missing, or the recipe predicts in a way that a graph cannot.
        RunError: the network cannot be exported, the file differs from emseg, or the disk is full.
    """
    require_onnx()
    require_whole_sections(model)
    with atomic_path(path) as temporary:
        export_graph(model, temporary)
        return require_same(model.predictor(), temporary)


def require_whole_sections(model: ModelToExport) -> None:
    """Refuse a model whose recipe predicts section by section in a way that is no graph.

    Raises:
        InputError: it does.
    """
    mode = model.run.settings.training.prediction
    if mode in ("average", "resize"):
        raise InputError(
            f"{model.name} predicts by training.prediction: {mode}, which is no part of its network; "
            "export it with --to folder"
        )


def export_graph(model: ModelToExport, path: Path) -> None:
    """Write the graph and what is to be known of it; it is checked, but not compared with emseg.

    Raises:
        RunError: the network cannot be exported.
    """
    import onnx

    network, normalization = model.network()
    module = WholeSections(network, normalization).eval()
    try:
        with warnings.catch_warnings(), _quiet("torch.onnx"), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (example_images(network),),
                path,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: "n", 2: "y", 3: "x"},),
                opset_version=OPSET,
                external_data=False,
                dynamo=True,
                verbose=False,
            )
        graph = onnx.load(path)
        if model.run.settings.training.test_time_augmentation:
            average_views(graph.graph)
        _describe(graph, _properties(model, network))
        onnx.save(graph, path)
        onnx.checker.check_model(path, full_check=True)
    except OSError:
        raise
    except Exception as error:  # whatever a network of a project's own makes the exporter raise
        reason = plain(str(error).strip().partition("\n")[0])[:200] or type(error).__name__
        raise RunError(f"{model.name} cannot be exported to ONNX ({reason}); export it with --to folder") from error


def require_same(predictor: Predictor, path: Path) -> float:
    """Compare an ONNX file with emseg on sections of several sizes, one of them odd, and two at once.

    Returns:
        The largest difference of a probability.

    Raises:
        RunError: it is above 1e-3.
    """
    stride, least = predictor.network.stride, least_side(predictor.network)
    sections = artificial_sections(predictor, max(32, 2 * least + 1, 4 * stride))
    largest = 0.0
    for height, width in ((least, least + 1), (2 * least + 1, least + 2), (least + 5, 4 * stride)):
        images = np.stack([sections[:, :height, :width], sections[:, -height:, -width:]])
        wanted = np.stack([predictor.section(list(image)) for image in images])[:, None]
        largest = float(np.maximum(largest, _difference(path, images, wanted)))  # NaN stays
    if not largest <= LARGEST_DIFFERENCE:
        raise RunError(
            f"the ONNX file does not give what emseg predicts (probabilities differ by up to {largest:.2g}); "
            "export the model with --to folder"
        )
    return largest


def _difference(path: Path, images: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference of what an ONNX file makes of images to what is wanted; infinite where it fails."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        found = session.run([OUTPUT], {INPUT: images})[0]
    except Exception:  # onnxruntime has no exception of its own
        return float("inf")
    return float(np.abs(found - wanted).max()) if found.shape == wanted.shape else float("inf")


def artificial_sections(predictor: Predictor, side: int) -> np.ndarray:
    """Consecutive sections (C, side, side) that nobody owns, as many as the network sees.

    They are float32, over the grey levels that it was trained on; side is at least 32.
    """
    normalization = predictor.normalization
    assert normalization is not None
    images, _ = make_synthetic(predictor.network.channels, side)
    return np.float32(normalization.low) + images * np.float32((normalization.high - normalization.low) / 255)


def channel_names(neighbours: int) -> list[str]:
    """Of the input: the section between those before and after it.

    >>> channel_names(1)
    ['section -1', 'section', 'section +1']
    """
    return [f"section {z:+d}" if z else "section" for z in range(-neighbours, neighbours + 1)]


def _describe(graph: ModelProto, properties: dict[str, str]) -> None:
    """Put what is known of the model into the file, and take out where it was exported."""
    from onnx.helper import set_model_props

    for part in (*graph.graph.node, *graph.graph.value_info, *graph.graph.input, *graph.graph.output, graph.graph):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.functions[:]
    sides = graph.graph.output[0].type.tensor_type.shape.dim
    for index, name in ((2, "y"), (3, "x")):
        sides[index].dim_param = name
    graph.producer_name = "emseg"
    graph.doc_string = (
        "Membranes in electron-microscopy sections: grey levels of whole sections in, probability of cell interior out."
    )
    set_model_props(graph, properties)


def _properties(model: ModelToExport, network: Network) -> dict[str, str]:
    """What the file says of its model, by name."""
    run, data = model.run, model.data
    sees = ", ".join(channel_names(network.neighbours))
    several = "; at the ends of a stack its last section stands in" if network.neighbours else ""
    return {
        "name": run.name,
        "version": model.version or "none",
        "digest": model.digest,
        "data": f"{data.title if data else run.dataset}, digest {run.data_digest}",
        "licence": data.licence if data and data.licence else "unknown; ask whoever made the sections",
        "cite": "; ".join(map(str, data.citations)) if data else "",
        "input": f"{INPUT}: float32 (n, {network.channels}, y, x), grey levels as the sections have them; "
        f"channels: {sees}{several}",
        "output": f"{OUTPUT}: float32 (n, 1, y, x) in [0, 1], of cell interior",
        "threshold": f"{model.threshold:.6g}",
        "cells": model.cells,
        "least_side": str(least_side(network)),
        "largest_side": f"{WHOLE_SECTION_SIDE}: emseg tiles what is larger",
    }


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Hold back what a logger says below errors."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
