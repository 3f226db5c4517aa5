"""TIFFs that a real ImageJ writes; skipped where ImageJ or a Java compiler is missing."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from emseg.data.io.formats import open_sections

JAR = Path(os.environ.get("EMSEG_IMAGEJ", "/usr/share/java/ij.jar"))
PROGRAM = Path(__file__).with_name("SaveTiffs.java")


def expected(count):
    """What the program draws, as whole numbers."""
    z, y, x = np.mgrid[:count, :6, :9]
    return x + 7 * y + 31 * z


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    if not JAR.is_file() or not shutil.which("javac"):
        pytest.skip("ImageJ (EMSEG_IMAGEJ names its ij.jar) or a Java compiler is not installed")
    folder = tmp_path_factory.mktemp("imagej")
    command = ["java", "-Djava.awt.headless=true", "-cp", str(JAR), str(PROGRAM), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(
    ("form", "dtype", "factor"), [("8bit", "uint8", 1), ("16bit", "uint16", 200), ("32bit", "float32", 0.25)]
)
def test_every_type(written, form, dtype, factor, count):
    sections = open_sections(written / f"{form}-{count}.tif")
    assert sections.dtype == dtype
    np.testing.assert_array_equal(sections.read_all(), expected(count) * factor)
    assert sections.metadata.voxel_size == ((50, 4, 4) if count > 1 else None)


@pytest.mark.parametrize("count", [1, 4])
def test_an_inverted_table_shows_zero_as_white(written, count):
    np.testing.assert_array_equal(open_sections(written / f"inverted-{count}.tif").read_all(), 255 - expected(count))


@pytest.mark.parametrize("axis", ["channels", "slices", "frames"])
def test_hyperstacks(written, axis):
    sections = open_sections(written / f"{axis}.tif")
    np.testing.assert_array_equal(sections.read_all(), expected(4))
    assert len(sections.remarks) == (axis != "slices")
