"""Readers of a run directory: terminal table, JUnit, results.json and the HTML page."""
