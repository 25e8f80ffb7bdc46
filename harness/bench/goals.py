"""What each figure is called, its unit, and the goal it is held against; whether a goal is reached fails nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.bench.figures import NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One figure for its reader: what it is, how a value is written, the goal, and whether a value reaches it.

    `reached` gives None where too little is known to tell.
    """

    title: str
    form: str
    words: str
    reached: Callable[[Any], bool | None]

    def written(self, value: Any) -> str:
        """Give `value` in words, "-" where there is none."""
        if isinstance(value, Mapping):
            return ", ".join(f"{key}: {self.written(each)}" for key, each in value.items())
        return "-" if value is None else self.form.format(value)


def spread(costs: Mapping[str, float | None]) -> float | None:
    """Give by how much the dearest run's scenarios cost more than the cheapest run's; None if not all are known."""
    known = [cost for cost in costs.values() if cost is not None]
    return max(known) / min(known) - 1 if len(known) == len(costs) else None


GOALS: Mapping[str, Goal] = {
    "collect_ratio": Goal(
        title="collecting 1,000 variants, over 1,000 trivial items of pytest",
        form="{:.2f} : 1",
        words="at most 2 : 1",
        reached=lambda value: value <= 2,
    ),
    "bare_faults_per_second": Goal(
        title="faults provoked, witnessed and judged per second without a guest",
        form="{:.0f}",
        words="more than 100",
        reached=lambda value: value > 100,
    ),
    "template_speedup": Goal(
        title="cold boot by hand, over a start by template",
        form="{:.1f} : 1",
        words="at least 20 : 1",
        reached=lambda value: value >= 20,
    ),
    "overhead": Goal(
        title="a scenario through the harness, over the same actions in a plain script",
        form="{:.3f}",
        words="at most 1.05",
        reached=lambda value: value <= 1.05,
    ),
    "pss_mib_per_guest": Goal(
        title="memory of one more guest of 512 MiB",
        form="{:.0f} MiB",
        words="at most 170 MiB",
        reached=lambda value: value <= 170,
    ),
    "scenarios_per_minute": Goal(
        title="scenarios per minute by workers",
        form="{:.1f}",
        words="at least 40 with 2 workers",
        reached=lambda value: None if value["2"] is None else value["2"] >= 40,
    ),
    "cost_per_scenario_s": Goal(
        title="seconds per scenario by the number of them",
        form="{:.3f}",
        words="within 10 %",
        reached=lambda value: None if (found := spread(value)) is None else found <= 0.10,
    ),
}


def has_number(value: Any) -> bool:
    """Tell whether anything of a figure is known."""
    return any(each is not None for each in (value.values() if isinstance(value, Mapping) else [value]))


def table(contents: Mapping[str, Any]) -> list[str]:
    """Give the figures of a `bench.json` as lines, those that were not asked for left out."""
    rows = []
    for name in NAMES:
        value, goal = contents[name], GOALS[name]
        missing = contents["missing"].get(name)
        if has_number(value):
            word = {True: "reached", False: "MISSED", None: "not told"}[goal.reached(value)]
            told = f"{word}: {goal.words}" + (f" ({missing})" if missing else "")
            rows.append((name, goal.written(value), told))
        elif missing != "not asked for":
            rows.append((name, "-", str(missing).splitlines()[0]))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(2)]
    return [f"{name:<{widths[0]}}  {value:<{widths[1]}}  {told}" for name, value, told in rows]
