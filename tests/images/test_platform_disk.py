"""The disk of a platform, made of small parts and taken apart again with the tools of the same packages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.images.lock import read_lock
from harness.images.packages import sha256
from harness.images.platform_disk import DISK, build_platform
from harness.images.recipe import load_recipe, recipe_path
from harness.images.store import ImageStore
from harness.images.sysroot import Sysroot

pytestmark = pytest.mark.qemu

#: Longer than a block of the file system, and short enough for a fragment; no word lies across two blocks.
PROGRAM, KERNEL = b"\x7fELF.qem" * ((300 << 10) // 8), b"\x7fELF.krn" * 512


@pytest.fixture(scope="module")
def tools(image_store, tmp_path_factory) -> Sysroot:
    """The packages that the disk is made with, which are in the cache once it was made."""
    image_store.build("platform", print)
    place = tmp_path_factory.mktemp("tools")
    debs = [image_store.cache / "debs" / f"{package.sha256}.deb" for package in read_lock(lock_of("platform")) or ()]
    lock = os.open(place / "lock", os.O_CREAT | os.O_RDWR)
    try:
        return Sysroot.unpack(debs, place / "root", lock=lock)
    finally:
        os.close(lock)


def lock_of(name: str) -> Path:
    return recipe_path(name).with_suffix(".lock")


def parts_below(path: Path) -> dict[str, Path]:
    """A QEMU and a guest image, each with the record that its builder leaves."""
    qemu, guest = path / "qemu-1234", path / "guest-5678"
    (qemu / "usr/bin").mkdir(parents=True)
    (qemu / "usr/bin/qemu").write_bytes(PROGRAM)
    (qemu / "usr/bin/qemu").chmod(0o755)
    (qemu / "usr/bin/link").symlink_to("qemu")
    guest.mkdir()
    (guest / "kernel").write_bytes(KERNEL)
    (guest / "initrd").write_bytes(b"\0" * 8192)
    for part in (qemu, guest):
        (part / "image.json").write_text(f'{{"built": "{path}"}}')
    return {"qemu": qemu, "guests/debian-13": guest}


def built(tools: Sysroot, path: Path, parts: dict[str, Path]) -> Path:
    scratch, into = path / "scratch", path / "into"
    scratch.mkdir(parents=True)
    into.mkdir()
    assert build_platform(load_recipe(recipe_path("platform")), tools, parts, scratch, into) == ", ".join(parts)
    return into / DISK


def test_a_disk_has_the_files_of_its_parts_and_nothing_of_who_made_them(tools, tmp_path):
    disk = built(tools, tmp_path, parts_below(tmp_path / "parts"))
    tools.run("usr/bin/unsquashfs", "-quiet", "-no-progress", "-dest", str(tmp_path / "taken-apart"), str(disk))
    root = tmp_path / "taken-apart"

    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or path.is_file()}
    assert files == {"qemu/usr/bin/qemu", "qemu/usr/bin/link", "guests/debian-13/kernel", "guests/debian-13/initrd"}
    assert (root / "qemu/usr/bin/qemu").read_bytes() == PROGRAM
    assert os.access(root / "qemu/usr/bin/qemu", os.X_OK)
    assert (root / "qemu/usr/bin/link").readlink() == Path("qemu")
    assert {path.lstat().st_mtime for path in root.rglob("*")} == {0.0}
    assert disk.read_bytes()[8:12] == bytes(4), "the time in the superblock (squashfs_super_block, fs/squashfs)"


def test_nothing_on_a_disk_is_compressed(tools, tmp_path):
    content = built(tools, tmp_path, parts_below(tmp_path / "parts")).read_bytes()

    assert content.count(b"\x7fELF") == (PROGRAM + KERNEL).count(b"\x7fELF")


def test_the_same_parts_give_the_same_bytes_whenever_and_wherever_they_were_made(tools, tmp_path):
    first = built(tools, tmp_path / "one", parts_below(tmp_path / "here"))
    again = parts_below(tmp_path / "there")
    for path in (tmp_path / "there").rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    second = built(tools, tmp_path / "two", again)
    assert sha256(first) == sha256(second)

    (again["qemu"] / "usr/bin/qemu").write_bytes(b"another")
    assert sha256(built(tools, tmp_path / "three", again)) != sha256(first)


def test_the_parts_stay_as_they_are(tools, tmp_path):
    parts = parts_below(tmp_path / "parts")
    before = {path: path.lstat().st_mode for path in (tmp_path / "parts").rglob("*")}
    built(tools, tmp_path, parts)

    assert {path: path.lstat().st_mode for path in (tmp_path / "parts").rglob("*")} == before


def test_the_shipped_disk_tells_what_is_on_it(image_store, qemu_build):
    disk = image_store.platform(print)

    assert (disk.guests, disk.qemu_version) == (("debian-12", "debian-13"), qemu_build.version)
    assert disk.path.read_bytes()[:4] == b"hsqs"
    assert image_store.intact("platform")


def test_another_recipe_of_a_part_makes_another_disk(image_store, recipes):
    same = ImageStore(image_store.cache, recipes=recipes)
    assert same.state("platform").path == image_store.state("platform").path

    guest = recipes / "debian-13.yaml"
    guest.write_text(guest.read_text().replace("keep: [", "keep: [dummy, ", 1))
    assert guest.read_text() != recipe_path("debian-13").read_text()
    assert ImageStore(image_store.cache, recipes=recipes).state("platform").path is None
