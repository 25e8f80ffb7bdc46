"""edu on a bare machine: its DMA channel, worked through its registers (hw/misc/edu.c, docs/specs/edu.rst).

The device is loaded with random bytes before anything is broken, and every payload is a piece of them that was not used
before: loading is a DMA too, and must not meet broken tables. To look at what it holds, translation is switched off for
a moment, which makes the unit forget what it has cached; it is only done after an attack.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.errors import InfraError
from harness.qtest import Read, Write
from harness.waiting import Deadline, wait_for

if TYPE_CHECKING:
    from harness.bare.session import BareDevice, BareSession

_SOURCE, _DESTINATION, _COUNT, _COMMAND = 0x80, 0x88, 0x90, 0x98
_RUN, _TO_MEMORY = 0x1, 0x2
_RAISE, _ACKNOWLEDGE = 0x60, 0x64
_IDENTIFICATION, _IS_EDU = 0x00, 0x010000ED

#: Where its 4 KiB of memory are on its side of the DMA channel. Beyond them old versions of QEMU write anywhere.
_MEMORY, _SIZE = 0x40000, 4096

#: Fresh bytes that it has at least when tables are whole: enough for three DMAs, between which nothing is loaded.
_ROOM = 3 * 512

#: The half of it that is loaded; what it reads goes to the other.
_LOADED = _SIZE // 2

#: Seconds for a DMA; it takes 100 ms of the machine's time, over which the idle machine's clock jumps.
_DONE_S = 10.0


@dataclass(slots=True)
class CopyChannel:
    """The DMA channel of one edu."""

    session: BareSession
    _loaded: bytes = b""
    _used: int = _LOADED
    _composed: int = field(default=0)

    def compose(self, length: int) -> bytes:
        """Give `length` bytes that the device holds and that were not given before."""
        start = self._used
        if start + length > len(self._loaded):
            raise InfraError(f"edu holds no {length} fresh bytes; it is loaded when the tables are laid")
        self._used += length
        self._composed = start
        return self._loaded[start : start + length]

    def prepare(self, device: BareDevice) -> None:
        """Load the device with fresh bytes if few are left."""
        if len(self._loaded) - self._used >= _ROOM:
            return
        self._load(device, secrets.token_bytes(_LOADED))
        self._used = 0

    def carry(self, device: BareDevice, payload: bytes) -> None:
        """Load the device with exactly these bytes, for `write`; those it was loaded with are gone then."""
        self._load(device, payload)
        self._used, self._composed = _LOADED, 0

    def _load(self, device: BareDevice, data: bytes) -> None:
        staging = self.session.layout.staging(device.name)
        self.session.write_physical(staging, data)
        with self.session.untranslated():
            self._copy(device, staging, _MEMORY, len(data), _RUN)
        self._loaded = data

    def write(self, device: BareDevice, address: int, payload: bytes, *, purpose: str) -> None:
        """Have it write what `compose` gave last."""
        if self._loaded[self._composed : self._composed + len(payload)] != payload:
            raise InfraError("edu was not given this payload by `compose`")
        self._announce(device, address, len(payload), "to-memory", purpose)
        self._copy(device, _MEMORY + self._composed, address, len(payload), _RUN | _TO_MEMORY)

    def read(self, device: BareDevice, address: int, length: int, *, purpose: str) -> None:
        """Have it read, into the half of its memory that holds nothing it is loaded with."""
        if length > _SIZE - _LOADED:
            raise InfraError(f"edu reads {_SIZE - _LOADED} bytes at most here, not {length}")
        self._announce(device, address, length, "from-memory", purpose)
        self._copy(device, address, _MEMORY + _LOADED, length, _RUN)

    def held(self, device: BareDevice, length: int) -> bytes:
        """Have it write what it holds to its staging page, without translation, and read that."""
        staging = self.session.layout.staging(device.name)
        self.session.write_physical(staging, secrets.token_bytes(length))
        with self.session.untranslated():
            self._copy(device, _MEMORY + _LOADED, staging, length, _RUN | _TO_MEMORY)
        return self.session.read_physical(staging, length, label=f"what {device.name} holds")

    def interrupt(self, device: BareDevice, address: int, data: int) -> None:
        """Program its MSI with this message and raise it."""
        self.session.buses.set_message(device.pci.address, address, data)
        self.session.journal.record(
            "agent", "interrupt", bdf=device.function, address=address, message=data, purpose="attack"
        )
        bar = device.pci.bars[0]
        with self.session.machine.explaining():
            self.session.machine.qtest.exchange(Write(bar + _RAISE, 1, 4), Write(bar + _ACKNOWLEDGE, 1, 4))

    def _announce(self, device: BareDevice, address: int, length: int, direction: str, purpose: str) -> None:
        self.session.journal.record(
            "agent", "dma", bdf=device.function, address=address, length=length, direction=direction, purpose=purpose
        )

    def _copy(self, device: BareDevice, source: int, destination: int, count: int, command: int) -> None:
        """Run the channel and wait until it is free again; it says nothing of how that went."""
        bar, qtest = device.pci.bars[0], self.session.machine.qtest
        with self.session.machine.explaining():
            values = ((_SOURCE, source), (_DESTINATION, destination), (_COUNT, count))
            taken = qtest.exchange(
                *(Write(bar + register, value, 8) for register, value in values),
                *(Read(bar + register, 8) for register, _ in values),
                Write(bar + _COMMAND, command, 8),
            )
            if taken != [value for _, value in values]:
                raise InfraError(f"edu at {device.function} was told {values}, but holds {taken}")
            wait_for(
                f"the DMA of {device.name}",
                lambda: not qtest.read(bar + _COMMAND, 8) & _RUN,
                Deadline.after(_DONE_S),
                abort=[self.session.machine.abort],
                every_s=0.0,
            )
