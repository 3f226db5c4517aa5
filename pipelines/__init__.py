"""The DVC stages: each reads params.yaml, calls emseg, and writes its outputs."""
