"""Models that travel: as a folder for emseg, as an ONNX file, as a package of BioImage.IO."""
