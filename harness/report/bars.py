"""Bar charts of what steps measured, as shapes for the page: lengths are shares of the longest bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Pixels: a bar's longest, the room for labels, each row, and the whole chart's width.
_LONGEST, _LEFT, _ROW, WIDTH = 300.0, 110, 26, 560


@dataclass(frozen=True, slots=True)
class DrawnBar:
    """One bar: where it lies, what it is called, its value in words, and the spread of its samples (x of both ends)."""

    y: int
    label: str
    value: str
    length: float
    low: float
    high: float
    best: bool


@dataclass(frozen=True, slots=True)
class DrawnChart:
    """One chart; `told` says in words how the best compares with the first."""

    title: str
    unit: str
    height: int
    left: int
    bars: tuple[DrawnBar, ...]
    told: str


def draw(charts: Sequence[Mapping[str, Any]]) -> tuple[DrawnChart, ...]:
    """Draw the charts of a verdict."""
    return tuple(_drawn(chart) for chart in charts if chart.get("bars"))


def _drawn(chart: Mapping[str, Any]) -> DrawnChart:
    bars = chart["bars"]
    samples = [bar["samples"] or [bar["value"]] for bar in bars]
    scale = _LONGEST / (max(max(each) for each in samples) or 1.0)
    pick = max if chart["better"] == "more" else min
    best = pick(bars, key=lambda bar: float(bar["value"]))
    drawn = tuple(
        DrawnBar(
            y=number * _ROW,
            label=bar["label"],
            value=_brief(bar["value"]),
            length=bar["value"] * scale,
            low=min(each) * scale,
            high=max(each) * scale,
            best=bar is best,
        )
        for number, (bar, each) in enumerate(zip(bars, samples, strict=True))
    )
    return DrawnChart(chart["title"], chart["unit"], len(bars) * _ROW, _LEFT, drawn, ratios(chart))


def ratios(chart: Mapping[str, Any]) -> str:
    """Say how each bar compares with the first: `paravirtual 3.7x emulated, direct 5.2x emulated`."""
    first, *others = chart["bars"]
    if not first["value"]:
        return ""
    return ", ".join(f"{bar['label']} {_brief(bar['value'] / first['value'])}x {first['label']}" for bar in others)


def _brief(value: float) -> str:
    """Three digits at most, and none behind the point of a large number."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
