"""One virtual function is reset while another, of the same NIC, carries traffic; all of that is recorded."""

from __future__ import annotations

import time

from harness.errors import HarnessError
from harness.nesting import acting, reopen
from harness.pci_config import express_capability
from harness.session import AttachedDevice, Session
from harness.sharing.queues import SharedNic
from harness.sharing.stream import Stream, echoed
from harness.traffic import counting_translations
from harness.waiting import Deadline, wait_for
from harness.witnesses.host_trace import CONFIG_WRITTEN, FUNCTION_RESET

#: Of the PCI Express capability: the device control register (PCI Express Base Specification 5.0, 7.5.3.4).
_DEVICE_CONTROL = 0x08

#: Seconds for so many frames to come back.
_FRAMES_S = 60.0

#: Seconds for a reset: the guest's kernel and, for a function that was handed on, the platform's wait a tenth each.
_RESET_S = 30.0

#: Seconds for reading the registers around it, and to find out that frames were lost.
_READ_S = 30.0


def record_reset(session: Session, device: AttachedDevice, beside: AttachedDevice, *, frames: int, size: int) -> None:
    """Reset `device` once `frames` frames have come back over `beside`, and go on until as many more have.

    The device is then opened anew for its engine. Raises HarnessError if the guest that has it cannot reset it.
    """
    if device.physical is None or device.physical != beside.physical:
        raise HarnessError(f"'{device.name}' and '{beside.name}' are not virtual functions of one NIC")
    nic = SharedNic.of(session, session.device(device.physical))
    observed = {
        "device": device.name,
        "source_id": str(device.source),
        "number": nic.number(device),
        "control": express_capability(session, device) + _DEVICE_CONTROL,
    }
    queues = {one.name: nic.control(nic.number(one)) for one in (device, beside)}
    lasts_s = 2 * _FRAMES_S + _RESET_S + _READ_S
    with (
        session.watching(CONFIG_WRITTEN, FUNCTION_RESET),
        counting_translations(session),
        echoed(session, beside, size, lasts_s=lasts_s) as stream,
    ):
        _await_frames(stream, frames)
        before = _read(session, queues, "before")
        asked = time.time()
        _reset_function(session, device)
        answered = time.time()
        after = _read(session, queues, "after")
        _await_frames(stream, stream.came_back() + frames)
    registers = {name: [place, before[name], after[name]] for name, place in queues.items()}
    session.record("reset", **observed, asked=asked, answered=answered, registers=registers)
    reopen(session, device)


def _await_frames(stream: Stream, wanted: int) -> None:
    """Wait until `wanted` frames are back; a stream that has ended before has lost some, which is for the judge."""
    wait_for(
        f"{wanted} frames to come back",
        lambda: stream.came_back() >= wanted or stream.dried_up,
        Deadline.after(_FRAMES_S),
        abort=stream.wire.abort,
        observed=lambda: f"{stream.came_back()} frames",
    )


def _read(session: Session, queues: dict[str, int], when: str) -> dict[str, str]:
    """Read the control registers of receive queues; gives them as hex, as they stand there."""
    return {
        name: session.read_physical(place, 4, label=f"receive queue of '{name}' {when}").hex()
        for name, place in queues.items()
    }


def _reset_function(session: Session, device: AttachedDevice) -> None:
    """Have the kernel of the guest that has `device` reset it by the bit of its device control register (FLR).

    In a nested guest the platform's VFIO takes that write for a wish, and resets the function itself
    (vfio_exp_config_write in Linux' vfio_pci_config.c). Over SSH: the agent may be echoing.
    """
    owner, mine = acting(session, device)
    script = f"cd /sys/bus/pci/devices/{mine.address} && echo flr >reset_method && echo 1 >reset"
    done = owner.guest.run(["sh", "-ec", script], timeout_s=_RESET_S)
    if done.status:
        said = done.stderr.decode(errors="replace").strip()
        raise HarnessError(f"the kernel that has '{device.name}' does not reset it: {said}")
