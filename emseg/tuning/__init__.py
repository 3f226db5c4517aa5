"""Optuna: what the reference paper set by hand, searched. The only room that imports it."""
