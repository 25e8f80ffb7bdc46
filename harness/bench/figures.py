"""What was measured: figures with their samples, and `bench.json`, which docs/bench.md explains."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.evidence import write_json

SCHEMA = 1
BENCH = "bench.json"

#: Every figure in the order it is measured and shown. The short ones first: what is wrong with a host shows early.
NAMES = (
    "collect_ratio",
    "bare_faults_per_second",
    "template_speedup",
    "overhead",
    "pss_mib_per_guest",
    "scenarios_per_minute",
    "cost_per_scenario_s",
)

#: The keys of the figures that are more than one number.
KEYS: Mapping[str, tuple[str, ...]] = {
    "scenarios_per_minute": ("1", "2"),
    "cost_per_scenario_s": ("10", "100", "1000"),
}

#: A figure: a number, or one for each of `KEYS`; None where it could not be had.
Value = float | None | Mapping[str, float | None]
Samples = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure: its value, the samples it was made from (by what they are of, with the unit), and what is missing.

    `missing` tells why the value, or one of its parts, is None.
    """

    value: Value
    samples: Samples = field(default_factory=dict)
    missing: str | None = None

    @classmethod
    def absent(cls, name: str, why: str) -> Figure:
        """Give the figure called `name` as one that could not be had."""
        return cls(value=dict.fromkeys(KEYS[name]) if name in KEYS else None, missing=why)


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Give the ratio of two medians."""
    return statistics.median(above) / statistics.median(below)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Give the slope of the line through `points` with the least squares; ValueError for fewer than two."""
    if len(points) < 2:
        raise ValueError("a slope takes two points")
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope


def document(figures: Mapping[str, Figure], *, quick: bool, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Give the contents of `bench.json`; figures that were not asked for are there too, as missing."""
    whole = {name: figures.get(name) or Figure.absent(name, "not asked for") for name in NAMES}
    return {
        "schema": SCHEMA,
        **{name: _rounded(figure.value) for name, figure in whole.items()},
        "samples": {
            name: {what: [round(each, 6) for each in given] for what, given in figure.samples.items()}
            for name, figure in whole.items()
        },
        "missing": {name: figure.missing for name, figure in whole.items() if figure.missing},
        "quick": quick,
        **facts,
    }


def write(directory: Path, contents: Mapping[str, Any]) -> Path:
    """Write `bench.json` into the run directory."""
    return write_json(directory / BENCH, contents)


def _rounded(value: Value) -> Value:
    if isinstance(value, Mapping):
        return {key: None if each is None else round(each, 4) for key, each in value.items()}
    return None if value is None else round(value, 4)
