"""Benchmark platform for segmenting neuronal membranes in electron-microscopy sections."""

__version__ = "0.1.0"
