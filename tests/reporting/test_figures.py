import pytest

from emseg.reporting.figures import learning_curves_figure


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
