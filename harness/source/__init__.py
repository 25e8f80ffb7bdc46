"""YAML with spans, and diagnostics that point into it."""
