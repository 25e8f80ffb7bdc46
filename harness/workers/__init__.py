"""Processes that run plans, several at once, for one run."""
