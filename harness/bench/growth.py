"""The memory of the harness's own processes over a long run, and whether it grows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.bench.figures import slope
from harness.bench.leftovers import descendants

#: What a process may gain after the warm-up: its allocator's moods, and so much for each of its runs, which is what
#: a run keeps of its result; a leak of one journal or one QMP session for each run is a hundred times that.
ALLOWED_MIB, ALLOWED_KIB_PER_RUN = 12.0, 16.0


@dataclass(slots=True)
class Growth:
    """Resident KiB of this process and its workers, on average, by the number of runs that had ended."""

    warm_up: int
    samples: list[tuple[int, float]] = field(default_factory=list)
    processes: int = 1

    def sample(self, runs: int) -> None:
        """Look at it now that `runs` have ended."""
        own = _resident()
        self.processes = max(self.processes, len(own))
        self.samples.append((runs, sum(own.values()) / len(own)))

    def describe(self) -> dict[str, Any]:
        """Tell it: MiB after the warm-up and at the end, KiB for each run between, and what is allowed."""
        warm = [(float(runs), kib) for runs, kib in self.samples if runs >= self.warm_up]
        if len(warm) < 2:
            return {"reason": "too few runs to tell"}
        runs = (warm[-1][0] - warm[0][0]) / self.processes
        return {
            "processes": self.processes,
            "after_warm_up_mib": round(warm[0][1] / 1024, 1),
            "end_mib": round(warm[-1][1] / 1024, 1),
            "slope_kib_per_run": round(slope(warm), 2),
            "allowed_mib": round(ALLOWED_MIB + ALLOWED_KIB_PER_RUN * runs / 1024, 1),
        }

    def excess(self) -> Iterator[str]:
        """Tell the growth if it is more than is allowed."""
        told = self.describe()
        if "reason" not in told and told["end_mib"] - told["after_warm_up_mib"] > told["allowed_mib"]:
            yield (
                f"memory: {told['after_warm_up_mib']} MiB after the warm-up, {told['end_mib']} MiB at the end, "
                f"{told['slope_kib_per_run']} KiB for each run"
            )


def _resident() -> dict[int, float]:
    """KiB of this process and of its descendants that run the same interpreter."""
    program = Path("/proc/self/exe").readlink()
    found: dict[int, float] = {}
    for process in [os.getpid(), *descendants(os.getpid())]:
        with contextlib.suppress(OSError, IndexError, ValueError):
            if Path(f"/proc/{process}/exe").readlink() == program:
                pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
                found[process] = pages * os.sysconf("SC_PAGE_SIZE") / 1024
    return found
