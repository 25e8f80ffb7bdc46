"""From YAML to typed scenarios: models, matrix and loader."""
