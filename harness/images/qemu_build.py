"""Builds the pinned QEMU: a directory with the binary, its libraries and firmware, and the command that runs it."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.errors import ImageError
from harness.images.packages import sha256
from harness.images.recipe import QemuRecipe
from harness.images.sysroot import LIBRARIES, LINKER, Sysroot
from harness.images.tree import Tree

_VERSION = re.compile(r"QEMU emulator version (\d+\.\d+[^ \n]*)")


@dataclass(frozen=True, slots=True)
class QemuBuild:
    """A QEMU to run.

    `path` is its binary, `argv_prefix` what a command line starts with, `env` what its environment must have beside
    the harness's own, `version` what it says of itself (`10.0.2`), `digest` a digest of all its files.
    """

    path: Path
    argv_prefix: tuple[str, ...]
    env: dict[str, str]
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class MovableQemu:
    """A build that runs on another host too: all its files are in `root`; `version` and `digest` as in `QemuBuild`."""

    root: Path
    recipe: QemuRecipe
    version: str
    digest: str


def build_qemu(recipe: QemuRecipe, sysroot: Sysroot, into: Path) -> str:
    """Write the build into the directory `into`, run it once, and return its version."""
    tree = Tree()
    for pattern in (LINKER, *recipe.files):
        for path in sysroot.matching(pattern):
            tree.add_from(sysroot, path)
    tree.add_libraries_from(sysroot)
    tree.copy_to(into)
    argv, env = command(recipe, into)
    return version_of(argv, env)


def command(recipe: QemuRecipe, root: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """The argv prefix and the environment that run the build in `root`."""
    data = [word for directory in recipe.data for word in ("-L", str(root / directory))]
    return (*Sysroot(root).command(recipe.program), *data), {"QEMU_MODULE_DIR": str(root / LIBRARIES / "qemu")}


def inside(recipe: QemuRecipe, root: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """The same for a build that lies in `root` of another host, so that no link of it can be followed here."""
    data = [word for directory in recipe.data for word in ("-L", f"{root}/{directory}")]
    libraries = f"{root}/{LIBRARIES}"
    program = f"{root}/{recipe.program}"
    name = PurePosixPath(recipe.program).name
    argv = (f"{root}/{LINKER}", "--argv0", name, "--library-path", libraries, program, *data)
    return argv, {"QEMU_MODULE_DIR": f"{libraries}/qemu"}


def version_of(argv: tuple[str, ...], env: dict[str, str]) -> str:
    """The version that the QEMU run by `argv` tells. Raises ImageError if it does not run."""
    try:
        said = subprocess.run(
            [*argv, "--version"], env={**os.environ, **env}, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise ImageError(f"{argv[0]} cannot be run: {error.strerror}") from None
    match = _VERSION.search(said.stdout)
    if said.returncode or not match:
        raise ImageError(f"{argv[-1]} is no QEMU that runs here: {(said.stderr or said.stdout).strip()[-500:]}")
    return match.group(1)


def named_by_user(path: Path) -> QemuBuild:
    """The QEMU at `path`, which the user named. Raises ImageError if it does not run."""
    if not path.is_file():
        raise ImageError(
            f"VTD_QEMU names {path}, which is not there",
            hint="name a binary or a recipe of kind qemu (qemu-11), or unset VTD_QEMU for the pinned build",
        )
    argv = (str(path),)
    return QemuBuild(path, argv, {}, version_of(argv, {}), sha256(path.resolve()))
