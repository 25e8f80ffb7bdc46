"""QEMU's trace events: switched over QMP, read from the log file that QEMU writes line by line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.errors import MonitorError
from harness.qmp import Monitor


def switch_events(monitor: Monitor, events: Sequence[str], *, on: bool) -> None:
    """Switch trace events and check with QEMU that they are; MonitorError for one QEMU does not have."""
    for event in events:
        monitor.execute("trace-event-set-state", name=event, enable=on)
        states = [entry["state"] for entry in monitor.execute("trace-event-get-state", name=event)]
        if states != ["enabled" if on else "disabled"]:
            raise MonitorError(
                f"trace event '{event}' did not switch {'on' if on else 'off'}: {states}",
                command="trace-event-set-state",
            )


def whole_lines(log: Path, since_offset: int) -> tuple[list[str], int]:
    """The whole lines of `log` from byte `since_offset`, and the offset at which to go on."""
    try:
        with log.open("rb") as file:
            file.seek(since_offset)
            data = file.read()
    except FileNotFoundError:
        return [], since_offset
    whole = data[: data.rfind(b"\n") + 1]
    return whole.decode("utf-8", errors="replace").splitlines(), since_offset + len(whole)
