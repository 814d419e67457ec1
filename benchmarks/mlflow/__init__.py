"""MLflow beside Modelmill, in an environment of its own."""
