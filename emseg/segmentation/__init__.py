"""Probabilities to cells: regions, how they merge, and whole stacks in files."""
