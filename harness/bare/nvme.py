"""NVMe on a bare machine, as a device with 512 bytes of memory: a feature that the host sets is kept and given back.

Host Behavior Support (NVM Express base specification, Set Features) is 512 bytes that QEMU's nvme_set_feature and
nvme_get_feature (hw/nvme/ctrl.c) move to and from wherever PRP entry 1 points, so no disk is needed. QEMU does not look
at what became of that DMA and completes the command all the same.

Its admin queues lie in mapped pages that are not attacked. Without their tables it would not even learn what to do.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.bare.layout import PAGE
from harness.errors import InfraError
from harness.qtest import Write
from harness.waiting import Deadline, wait_for

if TYPE_CHECKING:
    from harness.bare.session import BareDevice, BareSession

#: Bytes that it moves: no more and no less.
LENGTH = 512

#: The mapped pages for what it is loaded with and shows, for its submission queue, and for its completion queue.
_STAGING_PAGE, _SUBMISSION_PAGE, _COMPLETION_PAGE = 1, 2, 3

_MASK, _CONFIGURATION, _STATUS = 0x0C, 0x14, 0x1C
_QUEUE_SIZES, _SUBMISSION_QUEUE, _COMPLETION_QUEUE = 0x24, 0x28, 0x30
_SUBMISSION_TAIL, _COMPLETION_HEAD = 0x1000, 0x1004

#: CC: submission entries of 2^6 bytes, completion entries of 2^4, enabled.
_ENABLED = 6 << 16 | 4 << 20 | 1
_READY, _FATAL = 0x1, 0x2

_ENTRIES = 16
_COMMAND, _COMPLETION = struct.Struct("<BBHI16xQ8xI20x"), struct.Struct("<8xHHHH")
_SET_FEATURES, _GET_FEATURES, _HOST_BEHAVIOR = 0x09, 0x0A, 0x16

#: Seconds for a command; QEMU is done with it as soon as its main loop comes round.
_DONE_S = 10.0


@dataclass(slots=True)
class Features:
    """The memory of one NVMe controller, and its admin queues."""

    session: BareSession
    _submitted: int = 0

    def prepare(self, device: BareDevice) -> None:
        """Start the controller if it does not run."""
        if self._register(device, _STATUS) & _READY:  # not after it has lost its queues
            return
        home = self.session.layout.mapped(device.name)
        self.session.machine.write(self._page(device, _COMPLETION_PAGE), bytes(PAGE))
        self._submitted = 0
        self._set(device, (_CONFIGURATION, 0, 4))
        self._await(device, "to stop", lambda: not self._register(device, _STATUS) & _READY)
        self._set(
            device,
            (_MASK, 0xFFFF_FFFF, 4),  # completions are looked for, not signalled
            (_QUEUE_SIZES, _ENTRIES - 1 << 16 | _ENTRIES - 1, 4),
            (_SUBMISSION_QUEUE, home + _SUBMISSION_PAGE * PAGE, 8),
            (_COMPLETION_QUEUE, home + _COMPLETION_PAGE * PAGE, 8),
            (_CONFIGURATION, _ENABLED, 4),
        )
        self._await(device, "to start", lambda: self._register(device, _STATUS) & _READY)

    def compose(self, length: int) -> bytes:
        """Give random bytes; any will do."""
        _check(length)
        return secrets.token_bytes(length)

    def carry(self, device: BareDevice, payload: bytes) -> None:  # noqa: ARG002
        """Nothing: `write` takes any payload of the right length."""
        _check(len(payload))

    def write(self, device: BareDevice, address: int, payload: bytes, *, purpose: str) -> None:
        """Load it with `payload` through the staging page, then have it write that to `address`."""
        _check(len(payload))
        self.session.machine.write(self._page(device, _STAGING_PAGE), payload)
        self._command(device, _SET_FEATURES, self._staging(device))
        self._announce(device, address, "to-memory", purpose)
        self._command(device, _GET_FEATURES, address)

    def read(self, device: BareDevice, address: int, length: int, *, purpose: str) -> None:
        """Have it read at `address`."""
        _check(length)
        self._announce(device, address, "from-memory", purpose)
        self._command(device, _SET_FEATURES, address)

    def held(self, device: BareDevice, length: int) -> bytes:
        """Have it write what it holds to the staging page, and read that."""
        place = self._page(device, _STAGING_PAGE)
        self.session.machine.write(place, secrets.token_bytes(LENGTH))
        self._command(device, _GET_FEATURES, self._staging(device))
        return self.session.read_physical(place, length, label=f"what {device.name} holds")

    def interrupt(self, device: BareDevice, address: int, data: int) -> None:  # noqa: ARG002
        """Refuse: only edu's interrupts are driven."""
        raise InfraError(f"'{device.name}' cannot be told to request an interrupt")

    def _announce(self, device: BareDevice, address: int, direction: str, purpose: str) -> None:
        self.session.journal.record(
            "agent", "dma", bdf=device.function, address=address, length=LENGTH, direction=direction, purpose=purpose
        )

    def _command(self, device: BareDevice, opcode: int, address: int) -> None:
        """Have it do one command with the 512 bytes at `address`; whether it likes them is nobody's witness."""
        slot, turn = self._submitted % _ENTRIES, self._submitted // _ENTRIES
        command = _COMMAND.pack(opcode, 0, self._submitted & 0xFFFF, 0, address, _HOST_BEHAVIOR)
        self.session.machine.write(self._page(device, _SUBMISSION_PAGE) + slot * _COMMAND.size, command)
        completion = self._page(device, _COMPLETION_PAGE) + slot * _COMPLETION.size
        expected = (self._submitted & 0xFFFF, 1 - turn % 2)
        self._submitted += 1
        following = self._submitted % _ENTRIES
        self._set(device, (_SUBMISSION_TAIL, following, 4))

        def completed() -> bool:
            if self._register(device, _STATUS) & _FATAL:
                raise InfraError(f"the NVMe controller '{device.name}' cannot reach its queues (CSTS.CFS)")
            _, _, number, status = _COMPLETION.unpack(self.session.machine.read(completion, _COMPLETION.size))
            return (number, status & 1) == expected

        self._await(device, "to complete a command", completed)
        self._set(device, (_COMPLETION_HEAD, following, 4))

    def _await(self, device: BareDevice, what: str, condition: Callable[[], object]) -> None:
        what = f"the NVMe controller '{device.name}' {what}"
        wait_for(what, condition, Deadline.after(_DONE_S), abort=[self.session.machine.abort], every_s=0.0)

    def _staging(self, device: BareDevice) -> int:
        return self.session.layout.mapped(device.name) + _STAGING_PAGE * PAGE

    def _page(self, device: BareDevice, page: int) -> int:
        """Give the guest-physical address of one of its mapped pages."""
        place = self.session.layout.target(self.session.layout.mapped(device.name) + page * PAGE)
        if place is None:
            raise InfraError(f"page {page} of '{device.name}' is not mapped")
        return place

    def _register(self, device: BareDevice, offset: int) -> int:
        with self.session.machine.explaining():
            return self.session.machine.qtest.read(device.pci.bars[0] + offset, 4)

    def _set(self, device: BareDevice, *values: tuple[int, int, int]) -> None:
        """Write registers in order, each by offset, value and size."""
        bar = device.pci.bars[0]
        with self.session.machine.explaining():
            self.session.machine.qtest.exchange(*(Write(bar + offset, value, size) for offset, value, size in values))


def _check(length: int) -> None:
    if length != LENGTH:
        raise InfraError(f"an NVMe controller moves {LENGTH} bytes at a time here, not {length}")
