"""Evidence with a single change: which of them a judge may not notice."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
