"""The metrics by which this field ranks membrane segmentations."""

from emseg.metrics.overlap import dice, iou, iou_thresholded, pixel_error
from emseg.metrics.rand import rand_error
from emseg.metrics.scoring import Scores, score_stack

__all__ = ["Scores", "dice", "iou", "iou_thresholded", "pixel_error", "rand_error", "score_stack"]
