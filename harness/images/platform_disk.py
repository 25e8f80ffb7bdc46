"""Builds the disk of a platform guest: the QEMU and the guest images that a guest runs guests of its own with.

    qemu/            a QEMU build, as `harness.images.qemu_build` makes it
    guests/NAME/     kernel and initrd of a guest image

It is a squashfs without compression: TCG would take longer to decompress a page than to read it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from harness.images.recipe import PlatformRecipe
from harness.images.sysroot import Sysroot

DISK = "disk.squashfs"

#: Not what identifies the parts is kept, nor when or by whom they were made: same parts, same bytes.
_OPTIONS = (
    *("-noI", "-noId", "-noD", "-noF", "-noX", "-no-xattrs", "-no-exports"),
    *("-all-root", "-all-time", "0", "-mkfs-time", "0", "-no-progress", "-quiet"),
    *("-e", "image.json"),
)


def build_platform(
    recipe: PlatformRecipe, sysroot: Sysroot, parts: Mapping[str, Path], scratch: Path, into: Path
) -> str:
    """Write `into`/disk.squashfs of the directories `parts` (place on the disk to place here); returns what it holds.

    `scratch` is an empty directory of the same file system.
    """
    tree = scratch / "tree"
    for place, directory in parts.items():
        for file in sorted(path for path in directory.rglob("*") if path.name != "image.json" and not path.is_dir()):
            target = tree / place / file.relative_to(directory)
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            os.link(file, target, follow_symlinks=False)
    sysroot.run(recipe.files[0], str(tree), str(into / DISK), *_OPTIONS)
    return ", ".join(parts)
