"""The list of what decides what leaves nothing out."""

import ast

from emseg.records.code import DECIDES, PACKAGE

# What is below all rooms, and what hands results on without a say in them.
CARRIES = ("errors.py", "files.py", "text.py", "settings/", "records/")
# What sections are read by: their digests hold what it gives.
IN_DIGESTS_OF_DATA = (
    "data/__init__.py",
    "data/check.py",
    "data/io/",
    "data/adding.py",
    "data/cell_numbers.py",
    "data/contrast.py",
    "data/datasets/",
    "data/labelled.py",
    "data/labels.py",
    "data/sources.py",
    "data/synthetic.py",
)
START = {
    "train": ["training/run.py"],
    "calibrate": ["evaluation/calibrate.py"],
    "evaluate": ["evaluation/evaluate.py", "reporting/evaluation_figures.py"],
}


def imported(file):
    """The modules of emseg that a file imports, as paths in the package."""
    for node in ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("emseg"):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("emseg.")]
        else:
            continue
        for name in names:
            path = "/".join(name.split(".")[1:])
            for candidate in (f"{path}.py", f"{path}/__init__.py"):
                if (PACKAGE / candidate).is_file():
                    yield candidate


def needed(files):
    found, left = set(), list(files)
    while left:
        file = left.pop()
        if file not in found and not file.startswith(CARRIES):
            found.add(file)
            left += imported(file)
    return found


def test_what_a_stage_imports_decides_it_or_an_earlier_one():
    earlier = ()
    for stage, files in START.items():
        listed = (*earlier, *DECIDES[stage], *IN_DIGESTS_OF_DATA)
        left_out = [file for file in needed(files) if not file.startswith(listed)]
        # Packages that gather names for users hold no decision.
        assert [file for file in left_out if not file.endswith("__init__.py")] == []
        earlier = listed


def test_every_part_of_the_list_exists_and_is_listed_once():
    for parts in DECIDES.values():
        assert len(set(parts)) == len(parts)
        for part in parts:
            assert (PACKAGE / part).is_file() if part.endswith(".py") else (PACKAGE / part).is_dir()
