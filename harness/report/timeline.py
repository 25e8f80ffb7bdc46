"""The journal of one variant laid out on lanes: who saw what, and when, across the steps.

A run waits seconds for a boot and decides everything within milliseconds, so the axis is not even: each step gets room
by the logarithm of its length, and time runs evenly within it. The steps' true lengths stand beside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from harness.evidence import Entry
from harness.report.story import State, Story
from harness.witnesses.kernel_log import from_kernel

#: Drawing units; the page scales them.
WIDTH, LEFT, RIGHT, LANE_HEIGHT, TOP = 1000, 112, 10, 30, 6
#: Marks closer than this are drawn as one with a count.
APART = 9.0
_SHORTEST_S = 0.02


@dataclass(frozen=True, slots=True)
class Lane:
    """One row: `label` for the reader, `tone` for its colour, and the journal sources and kinds that belong there."""

    label: str
    tone: str
    y: float


@dataclass(frozen=True, slots=True)
class Mark:
    """One or more entries at nearly the same time. `title` is shown when pointed at."""

    x: float
    y: float
    tone: str
    count: int
    title: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One stretch of the first lane: the preparation or a step."""

    x: float
    y: float
    width: float
    label: str
    state: str
    title: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """Everything the drawing needs, in drawing units from the upper left corner."""

    width: float
    height: float
    left: float
    top: float
    lanes: tuple[Lane, ...]
    bars: tuple[Bar, ...]
    marks: tuple[Mark, ...]


_LANES = (
    ("steps", "step"),
    ("device DMA", "dma"),
    ("guest log", "log"),
    ("host trace", "trace"),
    ("memory read", "memory"),
    ("wire", "wire"),
    ("trouble", "error"),
)
_ALWAYS = 5


@dataclass(frozen=True, slots=True)
class _Stretch:
    begins: float
    ends: float
    label: str
    state: State
    title: str

    @property
    def room(self) -> float:
        return 1 + math.log1p(max(self.ends - self.begins, 0.0) / _SHORTEST_S)


def timeline(story: Story) -> Timeline | None:
    """Lay out the journal of `story`; None if it is empty or no step began."""
    stretches = _stretches(story)
    if not stretches:
        return None
    axis = _Axis(stretches)
    marks: list[Mark] = []
    lanes: list[Lane] = []
    for number, (label, tone) in enumerate(_LANES):
        entries = [entry for entry in story.entries if _tone(entry) == tone]
        if number >= _ALWAYS and not entries:
            continue
        y = TOP + LANE_HEIGHT * (len(lanes) + 0.5)
        lanes.append(Lane(label, tone, y))
        marks += _marks(entries, axis, tone, y)
    return Timeline(
        width=WIDTH,
        height=TOP + LANE_HEIGHT * len(lanes) + 8,
        left=LEFT,
        top=TOP,
        lanes=tuple(lanes),
        bars=tuple(axis.bars(lanes[0].y)),
        marks=tuple(marks),
    )


class _Axis:
    def __init__(self, stretches: Sequence[_Stretch]) -> None:
        scale = (WIDTH - RIGHT - LEFT) / sum(stretch.room for stretch in stretches)
        self._places: list[tuple[_Stretch, float, float]] = []
        x = float(LEFT)
        for stretch in stretches:
            self._places.append((stretch, x, stretch.room * scale))
            x += stretch.room * scale

    def x(self, t: float) -> float:
        for stretch, x, width in self._places:
            if t <= stretch.ends:
                share = (t - stretch.begins) / max(stretch.ends - stretch.begins, 1e-9)
                return x + width * min(max(share, 0.0), 1.0)
        return float(WIDTH - RIGHT)

    def bars(self, y: float) -> Iterable[Bar]:
        for stretch, x, width in self._places:
            yield Bar(x, y, width, stretch.label, stretch.state.value, stretch.title)


def _stretches(story: Story) -> list[_Stretch]:
    """Give the steps in order, with the time before the first as a stretch of its own."""
    if not story.entries or not any(step.began for step in story.steps):
        return []
    at, last = story.entries[0].t, max(entry.t for entry in story.entries)
    found: list[_Stretch] = []
    for step in story.steps:
        if step.began is None:
            continue
        if not found and step.began > at:
            found.append(_Stretch(at, step.began, "boot", State.DONE, f"boot: {step.began - at:.1f} s"))
        ends = step.ended if step.ended is not None else max(last, step.began)
        took = f"{ends - step.began:.2f} s" if step.ended is not None else "never ended"
        found.append(_Stretch(step.began, ends, str(step.number), step.state, f"{step.number}. {step.text} ({took})"))
    return found


def _tone(entry: Entry) -> str | None:
    """Tell the lane of an entry, None for what the drawing leaves out."""
    if entry.kind in ("error", "lost"):
        return "error"
    if entry.source == "kmsg":
        text = str(entry.data.get("text", ""))
        return (
            "log"
            if from_kernel(entry.data) and "DMAR" in text and ("fault" in text or "Request device" in text)
            else None
        )
    if entry.source == "agent":
        return "dma" if entry.kind == "dma" else None
    if entry.source == "trace" and entry.kind == "watching":
        return None
    return {"trace": "trace", "memory": "memory", "wire": "wire"}.get(entry.source)


def _marks(entries: Sequence[Entry], axis: _Axis, tone: str, y: float) -> list[Mark]:
    groups: list[tuple[float, list[Entry]]] = []
    for entry in sorted(entries, key=lambda each: each.t):
        x = axis.x(entry.t)
        if groups and x - groups[-1][0] < APART:
            groups[-1][1].append(entry)
        else:
            groups.append((x, [entry]))
    return [Mark(x, y, tone, _count(group), _title(group)) for x, group in groups]


def _count(group: Sequence[Entry]) -> int:
    return sum(int(entry.data.get("count", 1)) if entry.source == "trace" else 1 for entry in group)


def _title(group: Sequence[Entry]) -> str:
    lines = [f"{_clock(entry.t)}  {describe(entry)}" for entry in group[:12]]
    more = len(group) - len(lines)
    return "\n".join([*lines, *([f"and {more} more"] if more else [])])


def describe(entry: Entry) -> str:
    """Give one entry in a line."""
    data = entry.data
    if entry.source == "agent" and entry.kind == "dma":
        way = {"to-memory": "writes", "from-memory": "reads"}.get(str(data.get("direction")), data.get("direction"))
        return (
            f"{data.get('device')} ({data.get('bdf')}) {way} {data.get('length')} bytes at "
            f"{_hexadecimal(data.get('address'))} [{data.get('purpose')}]"
        )
    if entry.source == "trace" and "source_id" in data:
        return _describe_trace(entry)
    if entry.source == "memory":
        return f"{data.get('label')}: {data.get('size')} bytes at {_hexadecimal(data.get('gpa'))}"
    for key in ("text", "message"):
        if key in data:
            return str(data[key])
    return f"{entry.source} {entry.kind} " + ", ".join(f"{name}={value}" for name, value in data.items())[:200]


def _describe_trace(entry: Entry) -> str:
    data = entry.data
    if entry.kind == "translated":
        return f"{data.get('count')} translated DMAs of {data['source_id']}"
    if entry.kind == "recorded":
        return f"fault record: {data['source_id']}, reason {_hexadecimal(data.get('reason'))}"
    return (
        f"fault: {data['source_id']} {data.get('access')} at {_hexadecimal(data.get('first'))}, "
        f"reason {_hexadecimal(data.get('reason'))}, reported {data.get('count')} times"
    )


def _hexadecimal(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) else str(value)


def _clock(t: float) -> str:
    return datetime.fromtimestamp(t, UTC).strftime("%H:%M:%S.%f UTC")
