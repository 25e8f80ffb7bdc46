"""Builds a guest image: the unpacked kernel and an lz4 initramfs.

Same packages and files in, same bytes out, on any host: what compiles and packs comes from the packages too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from harness.images.kernel import Kernel
from harness.images.recipe import GuestRecipe
from harness.images.sysroot import LINKER, MERGED, Sysroot
from harness.images.tree import Tree

#: Where the agent is installed in the guest, and where it comes from.
AGENT_PATH = "usr/lib/vtd-agent"
AGENT = Path(__file__).resolve().parents[1] / "guest_agent"

#: Directories that must be there when the guest's init starts.
_EMPTY = ("dev", "etc/dropbear", "proc", "run", "sys", "tmp", "var/tmp")
_PRIVATE = ("root", "root/.ssh")
_PROGRAM_DIRECTORIES = ("usr/bin", "usr/sbin")

_LOADED = "import importlib,json,sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
_LOADED += "print(json.dumps([getattr(m, '__file__', None) for m in list(sys.modules.values())]))"


@dataclass(frozen=True, slots=True)
class GuestSources:
    """What goes into a guest beside packages: `files` is laid over its root, `agent` holds the agent's modules."""

    files: Path
    agent: Path = AGENT

    def paths(self) -> tuple[Path, ...]:
        """All of them, sorted."""
        overlay = sorted(path for path in self.files.rglob("*") if path.is_file())
        return (*overlay, *sorted(self.agent.glob("*.py")))


def build_guest(recipe: GuestRecipe, sysroot: Sysroot, sources: GuestSources, scratch: Path, into: Path) -> str:
    """Write `into`/kernel and `into`/initrd, using the empty directory `scratch`; returns the kernel's release."""
    kernel = Kernel(sysroot)
    tree = Tree()
    for name in MERGED:
        tree.add_link(name, f"usr/{name}")
    for pattern in (LINKER, *recipe.files):
        for path in sysroot.matching(pattern):
            tree.add_from(sysroot, path)
    for path, target in recipe.links.items():
        tree.add_link(path, target)
    made = scratch / "made"
    kernel.place_modules([*recipe.modules.load, *recipe.modules.keep], made)
    _add_python(recipe, sysroot, sources, made, tree)
    tree.add_libraries_from(sysroot)
    _add_applets(sysroot, tree)
    (made / "etc").mkdir()
    (made / "etc/modules").write_text(" ".join(recipe.modules.load) + "\n", encoding="utf-8")
    tree.add_directory_of(made)
    tree.add_directory_of(sources.files)
    for path in _EMPTY:
        tree.add_directory(path)
    for path in _PRIVATE:
        tree.add_directory(path, 0o700)
    (into / "kernel").write_bytes(kernel.vmlinux())
    _pack(tree, sysroot, scratch, into / "initrd")
    return kernel.release


def _add_python(recipe: GuestRecipe, sysroot: Sysroot, sources: GuestSources, made: Path, tree: Tree) -> None:
    """The standard modules that the recipe's imports load, and the agent, both compiled by the guest's own Python.

    Starting Python under TCG from source takes seconds. The compiled files are not checked against their sources
    (PEP 552, unchecked), so times of files don't matter.
    """
    python = f"usr/bin/python{recipe.python.version}"
    env = {"PYTHONHOME": str(sysroot.root / "usr"), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    loaded = json.loads(sysroot.run(python, "-S", "-c", _LOADED, *recipe.python.imports, env=env))
    for path in sorted({path for path in loaded if path}):
        inner = Path(path).relative_to(sysroot.root).as_posix()
        if inner.endswith(".py"):
            _copy(sysroot.root / inner, made / inner)
        else:
            tree.add_from(sysroot, inner)
    for module in sorted(sources.agent.glob("*.py")):
        _copy(module, made / AGENT_PATH / module.name)
    compiled = [str(made / f"usr/lib/python{recipe.python.version}"), str(made / AGENT_PATH)]
    options = ("-q", "-f", "-s", str(made), "-p", "/", "--invalidation-mode", "unchecked-hash")
    del env["PYTHONDONTWRITEBYTECODE"]
    sysroot.run(python, "-S", "-m", "compileall", *options, *compiled, env=env)


def _add_applets(sysroot: Sysroot, tree: Tree) -> None:
    """A link for each of busybox's programs that the image does not have from elsewhere."""
    for applet in sysroot.run("usr/bin/busybox", "--list-full").decode().split():
        directory, _, name = applet.rpartition("/")
        place = f"usr/{directory.removeprefix('usr/')}"
        there = any(f"{other}/{name}" in tree for other in _PROGRAM_DIRECTORIES)
        if place in _PROGRAM_DIRECTORIES and not there:
            tree.add_link(f"{place}/{name}", "/usr/bin/busybox")


def _pack(tree: Tree, sysroot: Sysroot, scratch: Path, initrd: Path) -> None:
    """Write the tree as a cpio archive in the lz4 form the kernel reads, with the packages' own tools.

    The way leads through a tar archive, because that does not carry the inode and device numbers of the files here,
    which cpio would.
    """
    listing, tar, archive = scratch / "listing.mtree", scratch / "initrd.tar", scratch / "initrd.cpio"
    listing.write_text(tree.listing(), encoding="utf-8")
    sysroot.run("usr/bin/bsdtar", "--create", "--format", "ustar", "--file", str(tar), f"@{listing}")
    sysroot.run("usr/bin/bsdtar", "--create", "--format", "newc", "--file", str(archive), f"@{tar}")
    sysroot.run("usr/bin/lz4", "-l", "-9", "-q", "-f", str(archive), str(initrd))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
