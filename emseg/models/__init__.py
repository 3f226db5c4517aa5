"""The networks, by name."""

from emseg.models.catalog import build_model, catalog_entry, count_parameters, list_models, register_model
from emseg.models.network import Network

__all__ = ["Network", "build_model", "catalog_entry", "count_parameters", "list_models", "register_model"]
