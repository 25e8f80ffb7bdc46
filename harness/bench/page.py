"""`bench.html` and `bench.svg`: every sample as a dot, its median as a line, on scales that begin at nothing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.bench.figures import NAMES
from harness.bench.goals import GOALS, has_number

PAGE, PLOT = "bench.html", "bench.svg"

#: In the units of the drawing: where scales begin, their length, and the height of a row.
_LEFT, _LENGTH, _ROW = 190, 560, 26

#: Steps of a scale's marks are one of these times a power of ten.
_STEPS = (1, 2, 5, 10)
_MARKS = 6


@dataclass(frozen=True, slots=True)
class Row:
    """Samples of one thing: where their dots and their median stand, and the median in words."""

    name: str
    y: int
    dots: tuple[float, ...]
    median: float
    told: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure: its heading, its rows over a common scale, and the marks of the scale (place, label)."""

    name: str
    title: str
    value: str
    goal: str
    reached: bool | None
    missing: str | None
    y: int
    height: int
    rows: tuple[Row, ...]
    marks: tuple[tuple[float, str], ...]


def write_page(directory: Path, contents: Mapping[str, Any]) -> Path:
    """Write the plot, and the page with the plot and the table, for the contents of a `bench.json`."""
    environment = Environment(
        loader=PackageLoader("harness.bench", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    panels = _panels(contents)
    height = panels[-1].y + panels[-1].height
    plot = environment.get_template("bench.svg.j2").render(
        panels=panels, width=_LEFT + _LENGTH + 40, height=height, left=_LEFT, right=_LEFT + _LENGTH
    )
    (directory / PLOT).write_text(plot, encoding="utf-8")
    page = environment.get_template("bench.html.j2").render(
        panels=panels,
        plot=Markup(plot),  # noqa: S704 - made by the other template, which escapes
        contents=contents,
    )
    path = directory / PAGE
    path.write_text(page, encoding="utf-8")
    return path


def _panels(contents: Mapping[str, Any]) -> list[Panel]:
    panels: list[Panel] = []
    y = 0
    for name in NAMES:
        value, goal, samples = contents[name], GOALS[name], contents["samples"][name]
        known = {what: given for what, given in samples.items() if given}
        top = max((max(given) for given in known.values()), default=1.0) or 1.0
        rows = tuple(_row(what, given, top, y + 64 + _ROW * place) for place, (what, given) in enumerate(known.items()))
        height = 64 + _ROW * len(rows) + 34
        panels.append(
            Panel(
                name=name,
                title=goal.title,
                value=goal.written(value),
                goal=goal.words,
                reached=goal.reached(value) if has_number(value) else None,
                missing=contents["missing"].get(name),
                y=y,
                height=height,
                rows=rows,
                marks=tuple(_marks(top)) if rows else (),
            )
        )
        y += height
    return panels


def _row(name: str, samples: Sequence[float], top: float, y: int) -> Row:
    median = statistics.median(samples)
    return Row(name, y, tuple(_place(each, top) for each in samples), _place(median, top), f"{median:.4g}")


def _place(value: float, top: float) -> float:
    return round(_LEFT + _LENGTH * value / top, 1)


def _marks(top: float) -> list[tuple[float, str]]:
    """Give round numbers from 0 up to `top` with their places."""
    power = 10.0 ** math.floor(math.log10(top / _MARKS))
    step = next(power * each for each in _STEPS if power * each * _MARKS >= top)
    return [(_place(number * step, top), f"{number * step:g}") for number in range(int(top / step) + 1)]
