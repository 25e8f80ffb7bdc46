"""What a run and its workers tell each other, over one socket for each worker.

A worker is sent a `Job` and then one `Plan` after the other, each once it has answered the last with its `Result`; in
between it sends `Progress` and `Said`. It ends when its socket is closed.
A `StorageError` in the place of a result ends the run.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.evidence import RunDirectory
from harness.runner import HostFacts


@dataclass(frozen=True, slots=True)
class Job:
    """What all plans of a run have in common."""

    run: RunDirectory
    host: HostFacts
    prove: bool


@dataclass(frozen=True, slots=True)
class Said:
    """A line of `HostFacts.progress`."""

    text: str


def unheard(text: str) -> None:
    """Stand in for `HostFacts.progress` on the way to a worker, which has its own."""
