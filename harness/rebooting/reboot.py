"""The reboot itself: a device writes, the machine is halted, looked at, reset, looked at, and let boot."""

from __future__ import annotations

import hashlib
from typing import Literal

from harness.errors import HarnessError
from harness.machine import reset
from harness.nesting import translate
from harness.rebooting.in_flight import InFlight, goes_on, in_flight
from harness.rebooting.place import Place
from harness.rebooting.unit_state import unit_state
from harness.session import AttachedDevice, Session
from harness.vtd.faults import Access
from harness.waiting import Deadline, wait_for
from harness.witnesses.host_trace import read_trace, translation

#: Who reboots: the machine's reset button, the guest's kernel without a word to anybody, or its orderly restart.
By = Literal["machine", "sysrq", "kernel"]

#: Seconds for the device's writes to be traced.
_TRACED_S = 10.0

#: Seconds for the machine to be halted while a write is in flight: on a busy host one is over before the halt.
_IN_FLIGHT_S = 20.0


def reboot(session: Session, device: AttachedDevice, by: By, place: Place) -> None:
    """Reboot the guest while `device` writes, and record what was to be seen of it."""
    if session.patches.made:
        raise HarnessError("the unit's tables are broken, and a reboot would leave nothing to mend")
    machine, flight = session.guest.machine, in_flight(device)
    before = session.call("hello")["boot_id"]
    place.open(session, device)
    since = machine.trace_lines()[1]
    with flight.writing(session, device, place) as payload:
        wait_for(
            f"DMA of '{device.name}' to be traced",
            lambda: _issued(session, device, flight, since)["translated"],
            Deadline.after(_TRACED_S),
            abort=[session.abort],
        )
        base = _registers_at(session, device)
        session.read_log()
        before_end = {"pages": place.read(session, "before the end")}
        cause = _halt(session, device, by, base, place)
        issued = _issued(session, device, flight, since)
        at_end = {
            "unit": unit_state(session, "at the end"),
            "device": flight.registers(session, base),
            "walk": translate(session, device, place.iova, Access.WRITE).address,
            "pages": place.read(session, "at the end"),
        }
        since = machine.trace_lines()[1]
        # What the device has written is erased, so that one more of the same writes shows.
        fresh = place.plant(session)
        strayed = hashlib.sha256(payload + fresh[len(payload) :]).hexdigest()
        planted = {"pages": place.read(session, "as planted"), "strayed": strayed}
        reset.reset(machine)
        at_reset = {"unit": unit_state(session, "at the reset"), "pages": place.read(session, "at the reset")}
        session.guest.hang_up()
        shown = _kernels(session)
        with reset.booting_again(machine):
            session.guest.again()
    session.begin_anew()
    device = session.device(device.name)
    after = {
        "unit": unit_state(session, "after the boot"),
        "device": flight.registers(session, _registers_at(session, device)),
        "pages": place.read(session, "after the boot"),
    }
    log = [int(entry.data["seq"]) for entry in session.boot_log]
    session.record(
        "rebooted",
        device=device.name,
        source_id=str(device.source),
        model=device.model,
        by=by,
        cause=cause,
        mapped=place.mapped,
        iova=place.iova,
        before_end=before_end,
        at_end=at_end,
        at_reset=at_reset,
        planted=planted,
        after=after,
        issued={"before": issued, "after": _issued(session, device, flight, since)},
        boot_ids=[before, session.guest.hello["boot_id"]],
        kernels=_kernels(session) - shown,
        log={"first": log[0] if log else None, "records": len(log)},
    )


def leave(session: Session) -> None:
    """What a reboot does to assignments, where nothing else of it is of interest: without protection."""
    for device in list(session.devices.values()):
        if device.domain is not None:
            session.leave_domain(device)


def _halt(session: Session, device: AttachedDevice, by: By, base: int, place: Place) -> str | None:
    """Halt the machine with a write in flight, by the guest's wish for a reset or without one.

    Gives QEMU's word for that wish, None for the machine's own reset.
    """
    machine, flight = session.guest.machine, in_flight(device)
    if by != "machine":
        return reset.halt_at_reset(machine, lambda: session.guest.agent.tell("reboot", how=by))

    def halted() -> bool:
        flight.launch(session, device, place)
        reset.halt(machine)
        if goes_on(device.model, flight.registers(session, base), place.iova):
            return True
        machine.cont()
        return False

    ends = Deadline.after(_IN_FLIGHT_S)
    wait_for(f"a write of '{device.name}' to be in flight", halted, ends, abort=[session.abort], every_s=0)
    return None


def _kernels(session: Session) -> int:
    """How many kernels have begun to boot, by the serial console: each tells its version first."""
    console = session.guest.machine.console.path.read_text(encoding="utf-8", errors="replace")
    return sum("Linux version" in line for line in console.splitlines())


def _registers_at(session: Session, device: AttachedDevice) -> int:
    """Where the guest has the device's first registers."""
    resources = session.call("pci", bdf=device.address)["resources"]
    return next(int(each["start"]) for each in resources if each["index"] == 0)


def _issued(session: Session, device: AttachedDevice, flight: InFlight, since: int) -> dict[str, int | None]:
    """Count the DMAs of the device that QEMU traced from byte `since` on.

    The unit tells of those that it translated, the device of all, where it tells anything.
    """
    lines, _ = read_trace(session.guest.machine.trace_lines(since)[0])
    translated = [seen for seen in map(translation, lines) if seen is not None and seen.source == device.source]
    own = None if flight.event is None else sum(line.event == flight.event for line in lines)
    return {"translated": len(translated), "own": own}


def watched(device: AttachedDevice) -> list[str]:
    """Name the trace events that `_issued` counts, beside the unit's."""
    event = in_flight(device).event
    return [] if event is None else [event]
