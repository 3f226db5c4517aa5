"""Datasets: a card each, NAME.yaml, which says what it is, where it comes from and what is owed to its makers."""
