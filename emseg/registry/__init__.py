"""Versions, the champion among them, and what people do with it."""
