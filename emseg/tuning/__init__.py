"""Optuna: what the study set by hand, searched. The only room that imports it."""
