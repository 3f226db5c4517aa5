"""Which code decides what: the one rule by which a step of the pipeline is stale.

A run's identity holds the digest of `train`. DVC depends on the same list: as paths where the package lies in the
project, as digests in code.yaml where it is installed elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import emseg

PACKAGE = Path(emseg.__file__).parent
_PARTS_OF_A_SPLIT = (
    "data/augmented_set.py",
    "data/labelled_sections.py",
    "data/normalization.py",
    "data/protocol.py",
)
# Reading, checking and cleaning of sections is only in `prepare`: what it gives is in the digests of the data.
# `settings` is only in `recipes`, whose files hold what it gives. Records, files and errors decide no number.
DECIDES: dict[str, tuple[str, ...]] = {
    "prepare": ("data", "project/stages/prepare.py"),
    "augment": (
        "data/augmented_set.py",
        "data/normalization.py",
        "data/protocol.py",
        "data/separation.py",
        "data/warp.py",
    ),
    "recipes": ("project/stages/recipes.py", "settings"),
    "train": (
        *_PARTS_OF_A_SPLIT,
        "data/separation.py",
        "data/warp.py",
        "inference",
        "metrics",
        "models",
        "training",
    ),
    "calibrate": (
        *_PARTS_OF_A_SPLIT,
        "evaluation/baselines.py",
        "evaluation/calibrate.py",
        "inference",
        "metrics",
        "segmentation/agglomeration.py",
        "segmentation/regions.py",
    ),
    "evaluate": (
        *_PARTS_OF_A_SPLIT,
        "evaluation",
        "inference",
        "metrics",
        "reporting/evaluation_figures.py",
        "reporting/figures.py",
        "reporting/section_pictures.py",
        "segmentation/agglomeration.py",
        "segmentation/regions.py",
        "segmentation/segmenter.py",
    ),
    "compare": ("evaluation/bootstrap.py", "project/stages/compare.py", "reporting"),
    "publish": ("project/stages/publish.py", "registry", "tracking"),
}
"""Stage of the pipeline, in their order, to the rooms and modules that decide what it writes."""


def code_digest(stage: str = "train") -> str:
    """Digest of the source files that decide what a stage writes, 32 hexadecimal digits."""
    return _digest(stage, PACKAGE)


def code_digests(package: Path = PACKAGE) -> dict[str, str]:
    """The digest of every stage."""
    return {stage: _digest(stage, package) for stage in DECIDES}


@lru_cache
def _digest(stage: str, package: Path) -> str:
    digest = hashlib.sha256()
    for file in _files(stage, package):
        digest.update(file.relative_to(package).as_posix().encode())
        # Git may give lines the end that the system likes.
        digest.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:32]


def _files(stage: str, package: Path) -> Iterator[Path]:
    for part in DECIDES[stage]:
        place = package / part
        files = [place] if place.suffix else place.rglob("*")
        yield from sorted(file for file in files if file.is_file() and file.suffix != ".pyc")
