"""MLflow: where runs are seen and compared. The only room that imports it."""
