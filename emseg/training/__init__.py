"""Train a network into a run record."""
