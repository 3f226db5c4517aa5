"""The networks, by name."""

from emseg.models.catalog import build_model, catalog_entry, count_parameters, list_models, register_model

__all__ = ["build_model", "catalog_entry", "count_parameters", "list_models", "register_model"]
