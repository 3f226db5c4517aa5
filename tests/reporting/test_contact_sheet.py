"""A contact sheet: what was read of a folder, to look at."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from emseg.data.io.stack import write_stack
from emseg.reporting.section_pictures import hatched, outlines, sampled, shrunk


class Cells(HTMLParser):
    """The text of the cells of a table."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_data(self, data):
        if data.strip():
            self.found.append(data)


def test_a_page_holds_the_facts_and_the_picture(tmp_path, emseg, source_folder):
    code, out, _ = emseg("data", "check", source_folder, "--sheet", tmp_path / "sheet.html")
    assert code == 0
    page = (tmp_path / "sheet.html").read_text()
    found = Cells(page).found
    for name, fact in (line.split(": ", 1) for line in out.splitlines() if ": " in line):
        assert found[found.index(name) + 1] == fact
    assert found[found.index("shown") + 1] == "every section"
    (content,) = re.findall('src="data:image/png;base64,([^"]+)"', page)
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    colours = np.asarray(picture.convert("RGB")).astype(int)
    # Cells are in colour, so the page shows more than grey.
    assert (np.ptp(colours, axis=-1) > 60).mean() > 0.2
    assert "http" not in page


def test_it_is_written_when_problems_are_found(tmp_path, emseg, source_folder, stack):
    images = stack[0].copy()
    images[4] = 9
    write_stack(source_folder / "images.tif", images)
    code, _, err = emseg("data", "check", source_folder, "--sheet", tmp_path / "sheet.html")
    assert code == 2
    problem = "section 4 is blank (every pixel is 9); leave it out"
    assert problem in err
    assert problem in Cells((tmp_path / "sheet.html").read_text()).found
    # Labels that cannot be read are not drawn: the page is grey, and says so.
    write_stack(source_folder / "labels.tif", stack[1][:5])
    assert emseg("data", "check", source_folder, "--sheet", tmp_path / "sheet.html")[0] == 2
    assert any("the image alone" in text for text in Cells((tmp_path / "sheet.html").read_text()).found)


def test_of_many_sections_some_are_drawn(tmp_path, emseg, source_folder, monkeypatch):
    monkeypatch.setattr("emseg.reporting.contact_sheet.MOST_SECTIONS", 3)
    drawn = []
    monkeypatch.setattr("emseg.reporting.contact_sheet.show_picture", lambda axis, picture, title: drawn.append(title))
    emseg("data", "check", source_folder, "--sheet", tmp_path / "sheet.html")
    found = Cells((tmp_path / "sheet.html").read_text()).found
    assert found[found.index("shown") + 1] == "3 of 9 sections, at even distances"
    assert drawn == ["section 0", "section 4", "section 8"]
    assert emseg("data", "check", source_folder, "--sheet", tmp_path / "sheet.png")[0] == 0
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_another_suffix_is_refused(tmp_path, emseg, source_folder):
    code, out, err = emseg("data", "check", source_folder, "--sheet", tmp_path / "sheet.pdf")
    assert (code, out) == (2, "")
    assert "must end with .png or .html" in err


def test_outlines_lie_in_the_cells():
    cells = np.array([[1, 1, 1, 0, 2], [1, 1, 1, 0, 2], [1, 1, 1, 3, 3]])
    expected = [[0, 0, 1, 0, 1], [0, 0, 1, 0, 1], [0, 0, 1, 1, 1]]
    np.testing.assert_array_equal(outlines(cells), np.array(expected, bool))


@pytest.mark.parametrize("most", [3, 5, 10, 100])
def test_pictures_of_one_section_have_one_size(most):
    image = np.arange(9 * 14, dtype=float).reshape(9, 14)
    small = shrunk(image, most)
    assert max(small.shape) <= most or most >= 14
    assert shrunk(image > 60, most).shape == sampled(image.astype(int), most).shape == small.shape
    if most == 5:
        assert small[0, 0] == image[:3, :3].mean()


def test_the_hatch_stays_in_its_pixels():
    mask = np.zeros((40, 40), bool)
    mask[10:30, 5:35] = True
    lines = hatched(mask)
    assert not (lines & ~mask).any()
    assert 0.15 < lines[mask].mean() < 0.35
