"""QEMU's edu device (1234:11e8) as a DMA engine; docs/specs/edu.rst and hw/misc/edu.c of QEMU."""

from __future__ import annotations

from typing import Any

from buffers import Mailbox
from dma import FROM_MEMORY, TO_MEMORY, Announcer
from function import Function
from protocol import Refused
from waiting import poll

_IDENTIFICATION = 0x00
_INTERRUPT_RAISE = 0x60
_INTERRUPT_ACKNOWLEDGE = 0x64
_SOURCE = 0x80
_DESTINATION = 0x88
_COUNT = 0x90
_COMMAND = 0x98

_RUN = 1 << 0
_TO_MEMORY = 1 << 1

#: The low bytes of the identification register; the top byte and half hold the version.
_MAGIC = 0xED
#: Device-internal address and bytes of its memory. QEMU before 10.0.12 runs past its own buffer if told to leave it.
MEMORY_AT = 0x40000
MEMORY_SIZE = 4096
#: The device takes 100 ms of the machine's virtual clock, which under TCG falls behind the guest's own patience.
_TRANSFER_S = 5.0
#: What the mailbox holds before the device stores into it, so that old content cannot pass for new.
POISON = 0xEE


class Edu:
    """An edu whose mailbox page stages bytes into and out of its internal memory.

    The end of a transfer is no evidence of its success: the device drops the bus's answer and has no error bit.
    """

    def __init__(self, function: Function, mailbox: Mailbox, announcer: Announcer) -> None:
        self._function = function
        self._mailbox = mailbox
        self._announcer = announcer
        identification = function.read32(_IDENTIFICATION)
        if identification & 0xFF != _MAGIC:
            raise Refused(f"{function.bdf} is no edu: identification {identification:#x}")
        self._await_idle()

    def describe(self) -> dict[str, Any]:
        """Identification and the size of its memory."""
        return {"identification": self._function.read32(_IDENTIFICATION), "memory": MEMORY_SIZE}

    def load(self, data: bytes, *, device_offset: int, purpose: str) -> dict[str, Any]:
        """Bring `data` into the device's memory by a DMA from the mailbox."""
        self._mailbox.write(0, data)
        return self.read(self._mailbox.bus_address, len(data), device_offset=device_offset, purpose=purpose)

    def store(self, length: int, *, device_offset: int, purpose: str) -> dict[str, Any]:
        """Bring the device's memory into the mailbox by DMA; `hex` is what the guest then sees there."""
        self._mailbox.write(0, bytes([POISON]) * Mailbox.size)
        done = self.write(self._mailbox.bus_address, length, device_offset=device_offset, purpose=purpose)
        return {**done, "hex": self._mailbox.read(0, length).hex(), "poison": POISON}

    def write(self, address: int, length: int, *, device_offset: int, purpose: str) -> dict[str, Any]:
        """One DMA from the device's memory to bus address `address`."""
        inside = _inside(device_offset, length)
        return self._transfer(inside, address, length, TO_MEMORY, purpose)

    def start_write(self, address: int, length: int, *, purpose: str) -> dict[str, Any]:
        """Begin one DMA from the device's memory to `address`, and leave it running."""
        announced = self._begin(MEMORY_AT, address, length, TO_MEMORY, purpose)
        return {"dma": announced["dma"], "registers": self._registers()}

    def read(self, address: int, length: int, *, device_offset: int, purpose: str) -> dict[str, Any]:
        """One DMA from bus address `address` to the device's memory."""
        inside = _inside(device_offset, length)
        return self._transfer(address, inside, length, FROM_MEMORY, purpose)

    def interrupt(self) -> None:
        """Have the device send its interrupt message, once."""
        self._function.write32(_INTERRUPT_RAISE, 1)
        self._function.write32(_INTERRUPT_ACKNOWLEDGE, 1)

    def quiesce(self) -> None:
        """Wait until no transfer runs."""
        self._await_idle()

    def _begin(self, source: int, destination: int, count: int, direction: str, purpose: str) -> dict[str, Any]:
        self._function.write64(_SOURCE, source)
        self._function.write64(_DESTINATION, destination)
        self._function.write64(_COUNT, count)
        command = _RUN | (_TO_MEMORY if direction == TO_MEMORY else 0)
        announced = self._announcer.started(
            direction=direction,
            address=destination if direction == TO_MEMORY else source,
            length=count,
            purpose=purpose,
            registers=self._registers(),
            doorbell={"register": _COMMAND, "value": command},
        )
        self._function.write64(_COMMAND, command)
        return announced

    def _transfer(self, source: int, destination: int, count: int, direction: str, purpose: str) -> dict[str, Any]:
        announced = self._begin(source, destination, count, direction, purpose)
        idle = poll(self._idle, _TRANSFER_S)
        status = "ended" if idle else "running"
        registers = self._registers()
        self._announcer.ended(announced, status=status, registers=registers)
        if not idle:
            raise Refused(f"edu still runs its transfer after {_TRANSFER_S:g} s")
        return {"dma": announced["dma"], "status": status, "registers": registers}

    def _registers(self) -> dict[str, int]:
        read = self._function.read64
        return {
            "source": read(_SOURCE),
            "destination": read(_DESTINATION),
            "count": read(_COUNT),
            "command": read(_COMMAND),
        }

    def _idle(self) -> bool:
        return not self._function.read64(_COMMAND) & _RUN

    def _await_idle(self) -> None:
        if not poll(self._idle, _TRANSFER_S):
            raise Refused(f"edu still runs a transfer after {_TRANSFER_S:g} s")


def _inside(offset: int, length: int) -> int:
    if offset < 0 or length <= 0 or offset + length > MEMORY_SIZE:
        raise Refused(f"edu has {MEMORY_SIZE} bytes of memory; asked for {length} at {offset}")
    return MEMORY_AT + offset
