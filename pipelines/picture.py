"""The README's picture: a synthetic section, its label, a plain threshold and a network, with their errors.

make benchmark && python -m pipelines.picture      writes reports/pictures/synthetic.png
"""

from pathlib import Path

import numpy as np

from emseg.data.augmented import fold_data
from emseg.inference import predict
from emseg.metrics import pixel_error
from emseg.reporting.baselines import fit_threshold, threshold_prediction
from emseg.reporting.figures import save_figure, sections_figure
from emseg.training.record import RunRecord
from emseg.training.run import split_of
from pipelines.stage import augmented_set, current_settings, prepared_source, run_folder, run_stage

MODEL = "unet2"


def main() -> None:
    """Write reports/pictures/synthetic.png from the embedded benchmark's results."""
    settings = current_settings()
    source = prepared_source(settings)
    data = fold_data(source, split_of(settings, source, 0), augmented_set(settings, source, 0), settings.seeds[0])
    smoothing, level = fit_threshold(data.validation_images, data.validation_labels)
    plain = threshold_prediction(data.test_images, smoothing, level)
    network, _ = RunRecord.open(run_folder(MODEL, 0, settings.seeds[0])).load_network()
    probability = predict(network, data.test_images)
    image, label = data.test_images[0], data.test_labels[0]
    pictures = {
        f"{source.name} section {data.test_sections[0]}": image,
        "label": label.astype(np.uint8) * 255,
        f"plain threshold, pixel error {pixel_error(plain, data.test_labels):.3f}": plain[0].astype(np.uint8) * 255,
        f"{MODEL}, pixel error {pixel_error(probability, data.test_labels):.3f}": np.rint(probability[0] * 255),
    }
    save_figure(sections_figure(pictures), Path("reports/pictures/synthetic.png"))


if __name__ == "__main__":
    run_stage(main)
