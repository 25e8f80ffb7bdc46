"""An opened PCI function: its registers, its bus-master bit. Opened through VFIO, or raw through sysfs.

Raw is for a machine without protection, where VFIO would not hand the device out: then nothing stands between
the device and guest memory, and bus addresses are guest-physical.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import NamedTuple, Protocol

import pci
import vfio
from protocol import Refused, attempting
from system import write_text


class Config(Protocol):
    """Access to the command register of a function."""

    def read_command(self) -> int:
        """The command register."""

    def write_command(self, value: int) -> None:
        """Set the command register."""

    def signal_msi(self, eventfd: int) -> None:
        """Have each interrupt message of the function counted in `eventfd`; Refused where that cannot be done."""

    def close(self) -> None:
        """Let go of what access needed."""


class VfioConfig:
    """Configuration space through the VFIO device file, which this object owns."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._offset = vfio.config_region(fd).offset

    def read_command(self) -> int:
        """The command register as VFIO shows it."""
        return int.from_bytes(os.pread(self._fd, 2, self._offset + pci.COMMAND), "little")

    def write_command(self, value: int) -> None:
        """Set the command register; VFIO passes memory decoding and bus mastering through to the device."""
        os.pwrite(self._fd, value.to_bytes(2, "little"), self._offset + pci.COMMAND)

    def signal_msi(self, eventfd: int) -> None:
        """The kernel allocates an interrupt remapping entry for the message, and programs it into the function."""
        vfio.signal_msi(self._fd, eventfd)

    def close(self) -> None:
        """Close the device file: VFIO resets the function where it can."""
        os.close(self._fd)


class RawConfig:
    """Configuration space through sysfs, of a function without driver."""

    def __init__(self, bdf: str) -> None:
        self._bdf = bdf

    def read_command(self) -> int:
        """The command register."""
        return pci.read_config(self._bdf, pci.COMMAND, 2)

    def write_command(self, value: int) -> None:
        """Set the command register."""
        pci.write_config(self._bdf, pci.COMMAND, value, 2)

    def signal_msi(self, eventfd: int) -> None:  # noqa: ARG002
        """Nobody takes interrupts of a function without driver."""
        raise Refused(f"{self._bdf} is driven raw, and its interrupts are nobody's")

    def close(self) -> None:
        """Take back the enabling of the function."""
        write_text(f"{pci.present(self._bdf)}/enable", "0")


class Function(NamedTuple):
    """A function whose BAR 0 is mapped at `base` of this process; `via` is `vfio` or `raw`."""

    bdf: str
    via: str
    memory: mmap.mmap
    base: int
    config: Config

    def read32(self, offset: int) -> int:
        """The 32-bit register at `offset`."""
        return ctypes.c_uint32.from_address(self.base + self._inside(offset, 4)).value

    def write32(self, offset: int, value: int) -> None:
        """Write a 32-bit register in one access."""
        ctypes.c_uint32.from_address(self.base + self._inside(offset, 4)).value = value

    def read64(self, offset: int) -> int:
        """The 64-bit register at `offset`, in one access."""
        return ctypes.c_uint64.from_address(self.base + self._inside(offset, 8)).value

    def write64(self, offset: int, value: int) -> None:
        """Write a 64-bit register in one access."""
        ctypes.c_uint64.from_address(self.base + self._inside(offset, 8)).value = value

    def master(self, *, on: bool) -> None:
        """Switch the function's own accesses to memory on or off; its registers stay reachable."""
        command = self.config.read_command() | pci.COMMAND_MEMORY
        self.config.write_command(command | pci.COMMAND_BUS_MASTER if on else command & ~pci.COMMAND_BUS_MASTER)

    def close(self) -> None:
        """Stop the function's accesses to memory and let go of it."""
        try:
            self.master(on=False)
        finally:
            self.config.close()

    def _inside(self, offset: int, width: int) -> int:
        if offset < 0 or offset + width > len(self.memory):
            raise Refused(f"{self.bdf} has {len(self.memory):#x} bytes of registers; asked for {offset:#x}")
        return offset


def open_vfio(bdf: str, fd: int) -> Function:
    """The function behind the VFIO device file `fd`, which it owns from now on; bus mastering on."""
    config = VfioConfig(fd)
    bar = vfio.region(fd, 0)
    # Memory decoding first: VFIO answers accesses to a disabled BAR with SIGBUS.
    config.write_command(config.read_command() | pci.COMMAND_MEMORY)
    with attempting(f"map the registers of {bdf}"):
        memory = mmap.mmap(fd, bar.size, offset=bar.offset)
    return _mapped(bdf, "vfio", memory, config)


def open_raw(bdf: str) -> Function:
    """The function `bdf` without VFIO; Refused while any driver has it. Bus mastering on."""
    driver = pci.driver_of(bdf)
    if driver is not None:
        raise Refused(f"{bdf} is bound to {driver}; raw access needs it unbound")
    path = pci.present(bdf)
    write_text(f"{path}/enable", "1")
    with attempting(f"map the registers of {bdf}"):
        fd = os.open(f"{path}/resource0", os.O_RDWR | os.O_CLOEXEC)
        try:
            memory = mmap.mmap(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)
    return _mapped(bdf, "raw", memory, RawConfig(bdf))


def _mapped(bdf: str, via: str, memory: mmap.mmap, config: Config) -> Function:
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    function = Function(bdf, via, memory, base, config)
    function.master(on=True)
    return function
