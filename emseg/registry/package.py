"""The model that users load: a run turned into files that are checked before they are believed.

record.json           settings, lineage, normalisation, as trained
weights.safetensors   the weights; no pickle anywhere
metrics.json          scores, and the threshold for cells
scores.csv            scores per section
model-card.md         what the model is for, and how to make it again
check.npz             a small input with the probability that the network gave for it
cells.json            how cells are told apart: thresholds, or rules for regions
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import torch
from torch import nn

from emseg.data.datasets.known import card_of_data
from emseg.data.normalization import Normalization
from emseg.errors import InputError
from emseg.files import atomic_folder, write_text
from emseg.inference.predictor import Predictor
from emseg.inference.trained import load_network, load_predictor, require_same_networks
from emseg.models import Network
from emseg.records.calibration import CELLS_FILE, read_calibration, write_calibration
from emseg.records.checked import DAMAGED, file_digest, reading, reason_of_damage
from emseg.records.evaluation import Evaluation, read_evaluation, require_calibration, require_fit
from emseg.records.record import RunRecord
from emseg.records.run import FINISHED, Run
from emseg.registry.manifest import is_exported, require_manifest
from emseg.segmentation.agglomeration import Agglomeration
from emseg.segmentation.segmenter import Segmenter
from emseg.text import markdown, plain

PACKAGE_FILES = (
    "record.json",
    "weights.safetensors",
    CELLS_FILE,
    "metrics.json",
    "scores.csv",
    "model-card.md",
    "check.npz",
)
"""All that a package may hold; nothing else is fetched, read or obeyed."""
AGAIN = "register its run again with `emseg publish RUN --again`"
_CHECK_SIDE = 64
_CHECK_TOLERANCE = 1e-3
"""Of a probability: processors round differently, a changed weight shows at once."""


class DeployedNetwork(nn.Module):
    """What the registry serves: raw grey levels in, probability out, normalisation inside.

    Maps float32 (N, C, Y, X), grey levels as the sections have them, sides multiples of the network's stride, to
    float32 (N, 1, Y', X') in [0, 1]. C is 1, or the sections that the network sees, the one to segment in the middle.
    """

    def __init__(self, network: Network, normalization: Normalization) -> None:
        super().__init__()
        self.network = network
        self.low, self.high = normalization.low, normalization.high

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Probability of cell interior."""
        scaled = ((images - self.low) / (self.high - self.low)).clamp(0, 1)
        return torch.sigmoid(self.network(scaled))


def write_package(record: RunRecord, folder: Path) -> None:
    """Write the package of a finished, evaluated run.

    Raises:
        InputError: the run is unfinished, was not evaluated, or its weights are not here.
    """
    run = record.read()
    if run.status != FINISHED:
        raise InputError(f"{record.folder}: the run is {run.status}; only a finished run becomes a model")
    evaluation = read_evaluation(record.evaluation_folder)
    require_fit(run, evaluation, record.evaluation_folder, is_proof_needed=True)
    calibration, _ = read_calibration(record.folder.parent, run)
    require_calibration(record.folder.parent, run, evaluation)
    with atomic_folder(folder, PACKAGE_FILES) as package, reading(record.folder.parent):
        scores = (record.evaluation_folder / name for name in ("metrics.json", "scores.csv"))
        for file in (record.folder / "record.json", record.weights_file, *scores):
            _require_file(file)
            shutil.copy(file, package)
        write_calibration(package, calibration)
        write_text(package / "model-card.md", model_card(run, evaluation))
        image = check_image(load_network(record)[1])
        np.savez(package / "check.npz", image=image, probability=_check_probability(record, image))


def check_image(normalization: Normalization) -> np.ndarray:
    """A section (64, 64) float32 of dark lines and noise over the whole range of grey levels."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:_CHECK_SIDE, :_CHECK_SIDE]
    lines = 0.5 + 0.3 * np.tanh(4 * (np.sin(x / 5) * np.cos(y / 7)))
    image = np.clip(lines + random.normal(0, 0.1, lines.shape), 0, 1)
    return (normalization.low + image * (normalization.high - normalization.low)).astype(np.float32)


def _check_probability(record: RunRecord, image: np.ndarray) -> np.ndarray:
    # On the CPU in float32, whatever the run predicts with: every machine must find the same.
    return next(Predictor(*load_network(record)).stream([image]))


def package_digest(folder: Path) -> str:
    """SHA-256 over names and bytes of a package's files.

    Raises:
        InputError: one of them is missing.
    """
    digest = hashlib.sha256()
    for name in package_files(folder):
        digest.update(name.encode())
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def package_files(folder: Path) -> list[str]:
    """The names of a package's files.

    Raises:
        InputError: one of them is missing.
    """
    for name in PACKAGE_FILES:
        if not (folder / name).is_file():
            raise InputError(f"its files lack {name}; the model is damaged, {AGAIN}")
    return list(PACKAGE_FILES)


def require_digest(folder: Path, name: str, expected: str | None) -> str:
    """The digest of a package, which is the one that was recorded.

    Args:
        folder: that holds the package's files.
        name: what to call the model.
        expected: digest that the registry recorded; None where there is none.

    Raises:
        InputError: a file is missing, or they are not those that were registered.
    """
    try:
        digest = package_digest(folder)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if expected is not None and digest != expected:
        raise InputError(
            f"{name}: its files are not those that were registered (digest {digest[:12]}, recorded "
            f"{plain(expected[:12]) or 'none'}); do not use it, {AGAIN}"
        )
    return digest


def open_package(folder: Path, name: str, expected_digest: str | None = None) -> Segmenter:
    """Load a package, and check it before it is used.

    Args:
        folder: that holds the package's files.
        name: what to call the model.
        expected_digest: that the registry recorded; None where there is none.

    Raises:
        InputError: a file is missing, differs from what was registered, is not what it should be, or the network
            does not give the check's probability again.
    """
    digest = require_digest(folder, name, expected_digest)
    try:
        record = RunRecord(folder)
        segmenter = _segmenter(record, folder, name, digest)
        with np.load(folder / "check.npz", allow_pickle=False) as check:
            image, expected = check["image"], check["probability"]
        difference = float(np.abs(_check_probability(record, image) - expected).max())
    except DAMAGED as error:
        raise InputError(
            f"{name} cannot be loaded ({reason_of_damage(error)}); evaluate its run, and {AGAIN}"
        ) from error
    if not difference < _CHECK_TOLERANCE:
        raise InputError(
            f"{name} does not reproduce its test output (probabilities differ by {difference:.2g}); do not use it"
        )
    return segmenter


def segmenter_of_run(folder: str | Path) -> Segmenter:
    """A segmenter straight from a run folder or an exported one, without a registry.

    Raises:
        InputError: there is no finished, calibrated run; or the folder is not as it was exported.
    """
    if is_exported(Path(folder)):
        manifest = require_manifest(Path(folder), list(PACKAGE_FILES))
        return open_package(Path(folder), str(folder), manifest.digest)
    record = RunRecord.open(folder)
    with reading(folder):
        _require_file(record.weights_file)
        # A package proves by its check that the network is the same; a run cannot.
        require_same_networks(record)
        return _segmenter(record, record.folder.parent, str(folder), file_digest(record.weights_file))


def _segmenter(record: RunRecord, calibrated: Path, name: str, fingerprint: str) -> Segmenter:
    run = record.read()
    calibration, _ = read_calibration(calibrated, run)
    rules = calibration.agglomeration
    agglomeration = None if rules is None else Agglomeration.from_rules(rules)
    return Segmenter(
        load_predictor(record), calibration.thresholds.v_rand, run.grey_levels, name, fingerprint, agglomeration
    )


def _require_file(file: Path) -> None:
    if not file.is_file():
        raise InputError(f"{file} is not here; copy it from where the run was made, or evaluate the run again")


def model_card(run: Run, evaluation: Evaluation) -> str:
    """What a user must know before trusting the model, in Markdown."""
    lineage = run.lineage
    scores = "\n".join(
        f"| {name} | {each.mean:.4f} | [{each.low:.4f}, {each.high:.4f}] |" for name, each in evaluation.metrics.items()
    )
    leaks = (
        "\n**This protocol leaks: the test images are warped copies of training sections. The scores are upper "
        "bounds.**\n"
        if evaluation.leaks
        else ""
    )
    return f"""# {markdown(run.model)}, fold {run.fold}, seed {run.seed}

Segments neuronal membranes in electron-microscopy sections: grey-level sections in, probability of cell interior out.

## Data

{markdown(run.dataset)}, digest {run.data_digest}. {_terms(run)}
Trained on {_count(run.split.training)}, validated on {_count(run.split.validation)}, tested on
{evaluation.sections} sections.

## Scores

Protocol {evaluation.protocol}, cells by {_cells(evaluation)}, pixels at 0.5.
{leaks}
| metric | mean over sections | 95 % interval |
|---|---|---|
{scores}

## Use and limits

Meant for sections like those it was trained on: same staining, resolution and preparation. Grey levels far from the
training data are reported, not corrected. It joins nothing across sections. Look at its result before counting on it;
it is not for diagnosis.

## Make it again

Commit {markdown(lineage.git_commit)}{" with uncommitted changes" if lineage.git_dirty else ""}, on
{markdown(lineage.device)}, torch {markdown(lineage.packages["torch"])}. `emseg lineage` prints the commands.
"""


def _terms(run: Run) -> str:
    """What the sections are, and on which terms they may be used."""
    known = card_of_data(run.data_digest, run.dataset_card) or run.dataset_card
    if known is None:
        return "The lab's own sections; ask it for their licence and how to cite them."
    voxel = " x ".join(f"{side:g}" for side in known.voxel_size_nm or [])
    what = [known.title, known.specimen, known.imaging, f"voxels {voxel} nm (z, y, x)" if voxel else None]
    licence = known.licence or "unknown; ask whoever made the sections"
    cite = f" Cite {'; '.join(map(str, known.citations))}." if known.citations else ""
    told = f"{', '.join(part for part in what if part).rstrip('.')}. Licence: {licence.rstrip('.')}.{cite}"
    return markdown(told[0].upper() + told[1:])


def _cells(evaluation: Evaluation) -> str:
    if evaluation.cells == "agglomeration":
        return "agglomeration, learned on the training sections"
    return f"threshold {evaluation.threshold}, chosen on validation"


def _count(sections: list[int]) -> str:
    # Under a protocol that divides augmented images, sections are not what is counted.
    return f"{len(sections)} sections" if sections else "augmented images"
