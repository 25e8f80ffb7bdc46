"""Devices that write by themselves while the machine is reset: a NIC what arrives, edu what it was told before."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Protocol

from harness.address_book import PAGE
from harness.rebooting.place import RESERVED, Place
from harness.session import AttachedDevice, Session, fresh_bytes
from harness.waiting import Deadline, wait_for, wait_until
from harness.wire import OTHER_HEADER

#: How often the device must have put its bytes back where they were erased, before it is believed to write on its own.
REWRITTEN = 3

#: Seconds for the device to do so once.
_WRITES_S = 10.0

#: Registers of the 82574: receive control with its enable bit, head and tail of the receive queue.
_RCTL, _RDH, _RDT, _RECEIVER_ON = 0x0100, 0x2810, 0x2818, 1 << 1

#: Registers of edu: where its DMA goes to, and its command with the bit that says that it runs.
_DESTINATION, _COMMAND, _RUN = 0x88, 0x98, 1 << 0


class InFlight(Protocol):
    """A device whose writes do not need the guest any more once they were begun."""

    @property
    def event(self) -> str | None:
        """The trace event by which QEMU tells of each write that the device issues, translated or not, if it does."""

    #: Whether it goes on while the guest comes to its reset by itself.
    lasts: ClassVar[bool]

    def writing(
        self, session: Session, device: AttachedDevice, place: Place
    ) -> contextlib.AbstractContextManager[bytes]:
        """A context in which the device writes where `place` leads it, and was seen to; gives what it writes."""

    def launch(self, session: Session, device: AttachedDevice, place: Place) -> None:
        """Have it write over the next moments, whatever becomes of the guest."""

    def registers(self, session: Session, base: int) -> dict[str, int]:
        """Read, from outside, what its registers say of its writes; they begin at the guest-physical `base`."""


@dataclass(frozen=True, slots=True)
class FloodedNic:
    """An e1000e whose receive ring has room for seconds, at the end of a wire that is never silent."""

    lasts: ClassVar[bool] = True
    event: str | None = "e1000e_rx_desc_buff_write"

    @contextmanager
    def writing(self, session: Session, device: AttachedDevice, place: Place) -> Iterator[bytes]:
        """Fill the ring and flood the wire for as long as the context lasts."""
        frame = OTHER_HEADER + secrets.token_bytes(16) * 40
        session.call(
            "device_arm_ring",
            device=device.name,
            address=place.iova,
            buffer=RESERVED,
            offset=place.ring - place.address,
            iova=place.ring,
            count=place.descriptors - 1,
        )
        wire = session.wire(device)
        enough = threading.Event()

        def flood() -> None:
            with contextlib.suppress(OSError):  # QEMU has ended, which others tell
                while not enough.wait(0.002):
                    wire.offer(frame)

        thread = threading.Thread(target=flood, name="flood")
        thread.start()
        try:
            for _ in range(REWRITTEN):
                _await_rewritten(session, device, place, frame)
            yield frame
        finally:
            enough.set()
            thread.join()

    def launch(self, session: Session, device: AttachedDevice, place: Place) -> None:
        """The flood goes on."""

    def registers(self, session: Session, base: int) -> dict[str, int]:
        """Receive control, head and tail."""
        read = session.guest.machine.register
        return {"control": read(base + _RCTL), "head": read(base + _RDH), "tail": read(base + _RDT)}


@dataclass(frozen=True, slots=True)
class DelayedEdu:
    """An edu whose DMA begins 100 ms of the machine's time after it was asked for (edu_mmio_write, hw/misc/edu.c).

    It has no reset: what it was told before one it does after it, if the bus lets it. In QEMU 10.0 the bus does, up to
    the firmware's first write of the device's command register: pci_do_device_reset (hw/pci/pci.c) clears Bus Master
    Enable in that register, and leaves the memory region of that name enabled, as `info mtree` tells of a machine that
    was just reset; pci_default_write_config is what would disable it.
    """

    lasts: ClassVar[bool] = False
    event: str | None = None

    @contextmanager
    def writing(self, session: Session, device: AttachedDevice, place: Place) -> Iterator[bytes]:
        """Have it write the same bytes again and again."""
        payload = fresh_bytes(_LENGTH)
        session.call("device_load", device=device.name, hex=payload.hex())
        for _ in range(REWRITTEN):
            place.plant(session)
            session.call("device_write", device=device.name, address=place.iova, length=len(payload))
            _await_rewritten(session, device, place, payload, erase=False)
        place.plant(session)
        yield payload

    def launch(self, session: Session, device: AttachedDevice, place: Place) -> None:
        """Ask for one more, and come back when it is about to begin."""
        session.call("device_start_write", device=device.name, address=place.iova, length=_LENGTH)
        wait_until(time.monotonic() + _DELAY_S)

    def registers(self, session: Session, base: int) -> dict[str, int]:
        """Destination and command."""
        read = session.guest.machine.register
        return {"destination": read(base + _DESTINATION, 8), "command": read(base + _COMMAND, 8)}


#: Bytes of each DMA of edu, and how many of its 100 ms are let pass before the machine is halted: what is left ends
#: before the firmware has come to the device.
_LENGTH, _DELAY_S = 64, 0.085

#: What each model has.
_MODELS: dict[str, InFlight] = {"e1000e": FloodedNic(), "edu": DelayedEdu()}


def in_flight(device: AttachedDevice) -> InFlight:
    """Give what makes `device`, one of `writing_models`, write on its own."""
    return _MODELS[device.model]


def writing_models(*, outlast: bool) -> tuple[str, ...]:
    """Name the models that can write on their own, or only those that `outlast` a guest's way to its reset."""
    return tuple(model for model, flight in _MODELS.items() if flight.lasts or not outlast)


def goes_on(model: str, registers: dict[str, int], iova: int) -> bool:
    """Whether a device with these registers has writes before it that need nobody else."""
    if model == "edu":
        return bool(registers["command"] & _RUN) and registers["destination"] == iova
    return bool(registers["control"] & _RECEIVER_ON) and registers["head"] != registers["tail"]


def _await_rewritten(
    session: Session, device: AttachedDevice, place: Place, written: bytes, *, erase: bool = True
) -> None:
    """Erase what the device wrote, and wait until it stands there again."""
    if erase:
        place.plant(session)
    memory = session.guest.machine.memory
    wait_for(
        f"'{device.name}' to write",
        lambda: memory.read(place.mapped, PAGE).startswith(written),
        Deadline.after(_WRITES_S),
        abort=[session.abort],
        every_s=0.005,
    )
    session.record("rewritten", device=device.name, at=place.mapped)
