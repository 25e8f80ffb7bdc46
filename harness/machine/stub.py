"""The kernel of a machine that is restored: QEMU must be given one, and nobody ever runs it.

With a kernel on its command line QEMU adds a boot ROM for its kind to the fw_cfg files, which a saved guest knows by
number (x86_load_linux in QEMU's hw/i386/x86-common.c). The real one would take 30 MiB of memory for each guest.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StubImage:
    """Stands in for the image called `name`; `kernel` and `initrd` are files with `STUB_KERNEL`."""

    name: str
    digest: str
    kernel: Path
    initrd: Path
    disks: Mapping[str, Path] = field(default_factory=dict)


def _stub() -> bytes:
    """The smallest ELF file that QEMU takes for an uncompressed kernel, which is what the images have.

    It says where a hypervisor enters it, in the note XEN_ELFNOTE_PHYS32_ENTRY (load_elfboot in the same file of QEMU,
    elfnote.h of Xen).
    """
    entry, headers = 0x100_0000, 64 + 2 * 56
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", entry)
    size = headers + len(note) + 4
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)  # 64 bits, little-endian
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, entry, entry, size, size, 0x1000)
    noted = struct.pack("<IIQQQQQQ", 4, 4, headers, entry + headers, entry + headers, len(note), len(note), 4)
    return header + load + noted + note + b"\xeb\xfe\0\0"  # jmp to itself


STUB_KERNEL = _stub()
