"""The metrics by which this field ranks membrane segmentations."""

from emseg.metrics.challenge import ChallengeScore, ChallengeSweep, cross_fitted, v_info, v_rand
from emseg.metrics.overlap import dice, iou, iou_thresholded, pixel_error
from emseg.metrics.rand import rand_error
from emseg.metrics.scoring import Scores, score_stack
from emseg.metrics.segments import VariationOfInformation, adapted_rand_error, variation_of_information
from emseg.metrics.thinning import thin_borders
from emseg.metrics.warping import WarpingError, warping_error

__all__ = [
    "ChallengeScore",
    "ChallengeSweep",
    "Scores",
    "VariationOfInformation",
    "WarpingError",
    "adapted_rand_error",
    "cross_fitted",
    "dice",
    "iou",
    "iou_thresholded",
    "pixel_error",
    "rand_error",
    "score_stack",
    "thin_borders",
    "v_info",
    "v_rand",
    "variation_of_information",
    "warping_error",
]
