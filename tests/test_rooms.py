"""The rooms of the package stand on each other: none imports from a room above its own, and all can be moved into."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import emseg

PACKAGE = Path(emseg.__file__).parent
FLOORS = (
    ("errors", "files", "text"),
    ("settings",),
    ("metrics", "models"),
    ("data",),
    ("records",),
    ("inference",),
    ("training", "segmentation"),
    ("tracking",),
    ("evaluation",),
    ("reporting",),
    ("tuning", "registry"),
    ("project",),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
MAY_IMPORT = {
    "mlflow": {"registry", "tracking"},
    "optuna": {"tuning", "tracking"},
    "dvc": {"project", "tracking"},
    "torch": {"data", "evaluation", "inference", "models", "registry", "segmentation", "training", "tuning"},
    "matplotlib": {"reporting", "tuning"},
    "onnx": {"registry"},
    "onnxruntime": {"registry"},
    "bioimageio": {"registry"},
}
"""Packages that a machine which only trains may lack, and the rooms that need them."""


def room_of(file):
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


MODULES = sorted(file for file in PACKAGE.rglob("*.py") if file.name != "__init__.py" or file.parent != PACKAGE)


def test_every_room_has_a_floor():
    assert {room_of(file) for file in MODULES} == set(LEVEL)


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_a_room_imports_only_from_floors_below(file):
    room = room_of(file)
    for name in imports_of(file):
        if name.startswith("emseg."):
            other = name.split(".")[1]
            assert other == room or LEVEL[other] <= LEVEL[room], name
        assert room in MAY_IMPORT.get(name.split(".")[0], {room}), name


def test_nothing_needs_a_system_with_posix():
    hidden = "import sys; sys.modules.update(dict.fromkeys(('fcntl', 'pwd', 'resource', 'termios', 'grp')))"
    names = (
        "cli",
        "data.sources",
        "metrics",
        "training.run",
        "evaluation.evaluate",
        "segmentation.volume",
        "reporting.runs",
    )
    code = "\n".join([hidden, *(f"import emseg.{name}" for name in names), "print('imported')"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.stdout.strip() == "imported", done.stderr
