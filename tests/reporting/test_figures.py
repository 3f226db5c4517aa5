import numpy as np
import pytest

from emseg.metrics.inputs import Truth
from emseg.reporting.figures import (
    FALSE_MEMBRANE,
    GIVEN_CELL,
    MISSED_MEMBRANE,
    error_overlay,
    label_picture,
    learning_curves_figure,
)


@pytest.mark.parametrize("name", ["unet2", "supervised_unet (best), half as long fold 0 seed 0", "x" * 100])
def test_names_of_curves_stay_inside_the_figure(name):
    history = [{"epoch": epoch, "train_loss": 1 / epoch, "validation_pixel_error": 0.1 / epoch} for epoch in (1, 2)]
    figure = learning_curves_figure("cortex", {f"{name} {number}": history for number in range(5)})
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box, whole = legend.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0
    assert box.x1 <= whole.x1
    assert whole.y0 <= box.y0
    assert box.y1 <= whole.y1


def test_what_is_ignored_is_shaded_and_cells_by_number_are_outlined():
    cells = np.zeros((8, 12), np.uint32)
    cells[1:7, 1:6], cells[1:7, 6:11] = 5, 9
    ignore = np.zeros(cells.shape, bool)
    ignore[:, 8:] = True
    image = np.full(cells.shape, 100, np.uint8)

    def is_of(picture, colour):
        return np.isclose(picture, colour, atol=1e-6).all(axis=-1)

    outlined = is_of(label_picture(Truth(cells > 0, cells)), GIVEN_CELL)
    expected = np.zeros(cells.shape, bool)
    for first, last in ((1, 5), (6, 10)):
        expected[1:7, first : last + 1] = True
        expected[2:6, first + 1 : last] = False
    np.testing.assert_array_equal(outlined, expected)
    assert not is_of(label_picture(Truth(cells > 0)), GIVEN_CELL).any()
    plain, shaded = (label_picture(Truth(cells > 0, None, part)) for part in (None, ignore))
    np.testing.assert_array_equal((plain != shaded).any(axis=-1), ignore)

    wrong = error_overlay(image, Truth(cells > 0, cells, ignore), cells == 0)
    np.testing.assert_array_equal(is_of(wrong, MISSED_MEMBRANE), (cells == 0) & ~ignore)
    np.testing.assert_array_equal(is_of(wrong, FALSE_MEMBRANE), (cells > 0) & ~ignore)
