"""NICs of a nested guest measured side by side: the same load through each, and what it costs the platform.

Nothing is judged by a number: ratios within one run characterise the models of I/O. Equal bytes and silence of the
remapping unit are demanded.
"""

from __future__ import annotations

import re
import secrets
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from harness.errors import HarnessError
from harness.nesting import acting
from harness.session import AttachedDevice, Session
from harness.traffic import Load, exchange
from harness.waiting import Deadline, wait_for
from harness.wire import TRAFFIC_HEADER, Wire

#: Seconds for the frames of one measurement: a thousand take less than ten.
_ECHO_S = 60.0

#: Ticks of a second in /proc/PID/stat (USER_HZ).
_TICKS = 100


@dataclass(frozen=True, slots=True)
class Costs:
    """What the guest's QEMU has cost so far: exits of its virtual processors by kind, and seconds of processor time."""

    exits: Mapping[str, int]
    cpu_s: float

    def since(self, before: Costs) -> dict[str, Any]:
        """Give what was added since `before`."""
        return {
            "exits": {kind: count - before.exits.get(kind, 0) for kind, count in self.exits.items()},
            "cpu_s": round(self.cpu_s - before.cpu_s, 3),
        }


def costs(session: Session, guest: str) -> Costs:
    """Read KVM's own counters of the nested guest (Documentation/virt/kvm/api.rst, binary stats; here by debugfs)."""
    pid = session.nested[guest].guest.machine.process.pid
    script = (
        "grep -q ' /sys/kernel/debug ' /proc/mounts || mount -t debugfs none /sys/kernel/debug; "
        f"cd /sys/kernel/debug/kvm/{pid}-*; grep -H . exits io_exits mmio_exits irq_exits halt_exits irq_injections; "
        f"cut -d')' -f2 /proc/{pid}/stat"
    )
    done = session.guest.run(["sh", "-c", script])
    text = done.stdout.decode(errors="replace")
    exits = {match[1]: int(match[2]) for match in re.finditer(r"^([a-z_]+):([0-9]+)$", text, re.MULTILINE)}
    if "exits" not in exits:
        raise HarnessError(f"KVM does not tell its counters of guest '{guest}': {done.stderr.decode().strip()}")
    fields = text.splitlines()[-1].split()
    return Costs(exits, (int(fields[11]) + int(fields[12])) / _TICKS)


def nic_of(session: Session, guest: str, name: str, uplinks: Mapping[str, tuple[str, str]]) -> AttachedDevice:
    """Give the NIC `name` of a nested guest, handed or given, as something to exchange frames over.

    `uplinks` has, by name of a given NIC, the platform's NIC that it goes through and its kernel driver.
    """
    if name in session.devices:
        return session.device(name)
    via, driver = uplinks[name]
    uplink = session.device(via)
    return AttachedDevice(
        name=name,
        model=driver,
        slot=uplink.slot,
        qdev={},
        kernel_driver=driver,
        wire=uplink.wire,
        address=uplink.address,
        source=uplink.source,
        guest=guest,
    )


def measure(session: Session, guest: str, nic: AttachedDevice, load: Load, *, warm: bool) -> None:
    """Exchange `load` over one NIC, then have single frames echoed; record what that took, as a `warm` round or not."""
    before = costs(session, guest)
    elapsed_ns = exchange(session, nic, load)
    spent = costs(session, guest).since(before)
    session.record(
        "measured" if warm else "warmed-up",
        nic=nic.name,
        load={"frames": load.frames, "size": load.size},
        elapsed_s=elapsed_ns / 1e9,
        round_trips_s=round_trips(session, nic, load.size),
        **spent,
    )


def round_trips(session: Session, nic: AttachedDevice, size: int, *, count: int = 20) -> list[float]:
    """Seconds from sending a frame on the wire until the guest's echo is back, for `count` frames one by one."""
    owner, mine = acting(session, nic)
    wire = session.wire(nic)
    wire.drain()
    session.listening.clear()
    with ThreadPoolExecutor(1, thread_name_prefix="echo") as pool:
        echo = pool.submit(owner.call, "echo", bdf=mine.address, frames=count, timeout_s=_ECHO_S, within_s=_ECHO_S + 15)
        deadline = Deadline.after(_ECHO_S + 15)
        wait_for(
            "the guest to listen on its NIC",
            lambda: session.listening.is_set() or echo.done(),
            deadline,
            abort=[session.abort],
        )
        times = [] if echo.done() else [_round_trip(wire, size, deadline) for _ in range(count)]
        echo.result()
    return times


def _round_trip(wire: Wire, size: int, deadline: Deadline) -> float:
    payload = secrets.token_bytes(size)
    begun = time.monotonic()
    wire.send(TRAFFIC_HEADER + payload)
    wire.receive(deadline, lambda frame: frame[14 : 14 + size] == payload)
    return round(time.monotonic() - begun, 6)


def medians(measured: Sequence[Mapping[str, Any]], nic: str) -> dict[str, tuple[float, tuple[float, ...]]]:
    """Give for one NIC, by what is measured, the median and the samples it is of: one for each round.

    `frames_per_s`, `round_trip_ms`, `exits_per_frame`, `cpu_ms_per_frame`; frames of both directions count.
    """
    rounds = [data for data in measured if data["nic"] == nic]
    frames = [2 * data["load"]["frames"] for data in rounds]
    samples = {
        "frames_per_s": [count / data["elapsed_s"] for count, data in zip(frames, rounds, strict=True)],
        "round_trip_ms": [1e3 * statistics.median(data["round_trips_s"]) for data in rounds],
        "exits_per_frame": [data["exits"]["exits"] / count for count, data in zip(frames, rounds, strict=True)],
        "cpu_ms_per_frame": [1e3 * data["cpu_s"] / count for count, data in zip(frames, rounds, strict=True)],
    }
    return {name: (statistics.median(values), tuple(values)) for name, values in samples.items()}
