"""Segment sections of any size with any network."""

from emseg.data.normalization import Normalization
from emseg.inference.predictor import Predictor, predict

__all__ = ["Normalization", "Predictor", "predict"]
