"""The README's picture: a synthetic section, its label, a plain threshold and a network, with their errors.

make benchmark && python -m benchmarks.picture      writes reports/pictures/synthetic.png
"""

from pathlib import Path

import numpy as np

from emseg.evaluation.baselines import fit_threshold, threshold_prediction
from emseg.inference import predict
from emseg.inference.trained import load_network
from emseg.metrics import pixel_error
from emseg.project.folders import prepared_source, run_folder
from emseg.records.record import RunRecord
from emseg.reporting.figures import save_figure, sections_figure
from emseg.settings import load_settings
from emseg.training.plan import RunPlan

MODEL = "unet2"


def main() -> None:
    """Write reports/pictures/synthetic.png from the embedded benchmark's results."""
    settings = load_settings()
    plan = RunPlan(MODEL, 0, settings.seeds[0], settings, prepared_source(settings))
    test = plan.parts.test
    smoothing, level = fit_threshold(plan.validation.images, plan.validation.labels)
    plain = threshold_prediction(test.images, smoothing, level)
    network, _ = load_network(RunRecord.open(run_folder(MODEL, plan.fold, plan.seed)))
    probability = predict(network, test.images)
    image, label = test.images[0], test.labels[0]
    pictures = {
        f"{plan.dataset.name} section {test.numbers[0]}": image,
        "label": label.astype(np.uint8) * 255,
        f"plain threshold, pixel error {pixel_error(plain, test.labels):.3f}": plain[0].astype(np.uint8) * 255,
        f"{MODEL}, pixel error {pixel_error(probability, test.labels):.3f}": np.rint(probability[0] * 255),
    }
    save_figure(sections_figure(pictures), Path("reports/pictures/synthetic.png"))


if __name__ == "__main__":
    main()
