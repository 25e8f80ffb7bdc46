"""The kernel of a guest image, unpacked, and its modules.

A bzImage holds the compressed ELF file `vmlinux`. Under TCG the guest takes 1 s (zstd) to 2.5 s (xz) of each boot to
decompress it; unpacked, QEMU boots the same file through its PVH entry (hw/i386/x86-common.c, x86_load_linux; the ELF
note XEN_ELFNOTE_PHYS32_ENTRY comes with CONFIG_PVH, which Debian's kernels have).
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Sequence
from pathlib import Path

from harness.errors import ImageError
from harness.images.sysroot import Sysroot

_ELF, _XZ, _ZSTD = b"\x7fELF", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
#: Offsets in the setup header: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
_SETUP_SECTS, _MAGIC, _PAYLOAD = 0x1F1, 0x202, 0x248
_SECTOR = 512


class Kernel:
    """The one kernel among the packages of `sysroot`; `release` is what `uname -r` says."""

    def __init__(self, sysroot: Sysroot) -> None:
        modules = sorted((sysroot.root / "usr/lib/modules").glob("*/kernel"))
        if len(modules) != 1:
            raise ImageError(f"the packages hold {len(modules)} kernels instead of one")
        self._sysroot = sysroot
        self._modules = modules[0].parent
        self.release = self._modules.name

    def vmlinux(self) -> bytes:
        """The uncompressed kernel."""
        # Debian's later kernels keep it beside their modules.
        places = (self._sysroot.root / f"boot/vmlinuz-{self.release}", self._modules / "vmlinuz")
        found = next((place for place in places if place.exists()), None)
        if found is None:
            raise ImageError(f"the packages hold no vmlinuz of {self.release}")
        image = found.read_bytes()
        if image[_MAGIC : _MAGIC + 4] != b"HdrS":
            raise ImageError(f"vmlinuz-{self.release} is no bzImage")
        offset, length = struct.unpack_from("<II", image, _PAYLOAD)
        start = (image[_SETUP_SECTS] + 1) * _SECTOR + offset
        # The last four bytes are the uncompressed size; xz tolerates what follows its stream, zstd does not.
        payload = image[start : start + length - 4]
        if payload.startswith(_XZ):
            kernel = lzma.LZMADecompressor().decompress(payload)
        elif payload.startswith(_ZSTD):
            kernel = self._sysroot.run("usr/bin/zstd", "--decompress", "--stdout", stdin=payload)
        else:
            raise ImageError(f"vmlinuz-{self.release} is compressed in an unknown way: {payload[:6].hex()}")
        if not kernel.startswith(_ELF):
            raise ImageError(f"vmlinuz-{self.release} does not hold an ELF file")
        return kernel

    def place_modules(self, names: Sequence[str], root: Path) -> None:
        """Write the modules `names` and all they need, uncompressed, with their index, below `root`/usr/lib/modules.

        Modules built into the kernel are passed over. Raises ImageError for a name that is neither.
        """
        known = {_name(path): path for path in sorted(self._modules.rglob("*.ko*"))}
        builtin = {_name(Path(line)) for line in (self._modules / "modules.builtin").read_text().split()}
        pending, placed = list(names), set[str]()
        while pending:
            name = pending.pop()
            if name in placed or (name in builtin and name not in known):
                continue
            if name not in known:
                raise ImageError(
                    f"kernel {self.release} has no module '{name}'", hint="correct `modules` of the recipe"
                )
            placed.add(name)
            pending += self._place(known[name], root)
        for index in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
            target = root / self._modules.relative_to(self._sysroot.root) / index
            target.write_bytes((self._modules / index).read_bytes())
        (root / "lib").symlink_to("usr/lib")
        self._sysroot.run("usr/bin/kmod", "-b", str(root), self.release, name="depmod")
        (root / "lib").unlink()

    def _place(self, module: Path, root: Path) -> list[str]:
        """Write one module and return the names of those it depends on."""
        target = root / module.relative_to(self._sysroot.root)
        data = module.read_bytes()
        if module.suffix == ".xz":
            target, data = target.with_suffix(""), lzma.decompress(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        needs = self._sysroot.run("usr/bin/kmod", "-F", "depends", str(target), name="modinfo").decode().strip()
        return [name.replace("-", "_") for name in needs.split(",") if name]


def _name(path: Path) -> str:
    """A module's name as modprobe takes it."""
    return path.name.split(".ko")[0].replace("-", "_")
