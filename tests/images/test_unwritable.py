"""A cache of images that cannot be written: one sentence with what, where and what to do, and nothing half made."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from harness.errors import StorageError
from harness.images import store
from harness.images.apt import Archive
from harness.images.lock import write_lock
from harness.images.packages import Packages
from harness.images.store import ImageStore
from harness.images.sysroot import Sysroot
from harness.storage import said_by_program

ERRNOS = [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT]


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A store whose packages and builder are stand-ins, so that a build is nothing but its writes."""

    def made(_self, _recipe, _sysroot, _scratch, result):
        (result / "program").write_text("x" * 10)
        return "1.0"

    monkeypatch.setattr(store, "_require_apt", lambda: None)
    monkeypatch.setattr(store.Stock, "obtain", lambda *_: Packages({}))
    monkeypatch.setattr(store.Sysroot, "unpack", lambda *_args, **_named: None)
    monkeypatch.setattr(ImageStore, "_made", made)
    return ImageStore(tmp_path / "cache")


def failing(number, places):
    """Give a function that fails with `number` where its path is one of `places`, and else does what it did."""

    def of(real):
        def act(*arguments, **named):
            words = " ".join(map(str, (*arguments, *named.values())))
            if any(place in words for place in places):
                raise OSError(number, os.strerror(number))
            return real(*arguments, **named)

        return act

    return of


#: What fails: whose attribute, and in what path.
PLACES = {
    "the lock": (Path, "mkdir", "/locks"),
    "the packages' directory": (Path, "mkdir", "/debs"),
    "the builder's directory": (Path, "mkdir", "/building"),
    "the private directory": (tempfile, "mkdtemp", "/building"),
    "the result": (Path, "mkdir", "/result"),
    "a file of the result": (Path, "write_text", "/program"),
    "the record": (Path, "write_text", "/image.json"),
    "the images' directory": (Path, "mkdir", "/images"),
    "the rename": (Path, "rename", "/result"),
}


@pytest.mark.parametrize("number", ERRNOS)
@pytest.mark.parametrize("place", PLACES)
def test_every_write_of_a_build_tells_what_and_where(cached, monkeypatch, place, number):
    holder, name, path = PLACES[place]
    monkeypatch.setattr(holder, name, failing(number, [path])(getattr(holder, name)))
    with pytest.raises(StorageError) as caught:
        cached.build("qemu", lambda _: None)
    monkeypatch.undo()
    assert caught.value.errno == number
    assert str(cached.cache) in caught.value.message
    assert "qemu" in caught.value.message
    assert os.strerror(number) in caught.value.message
    assert caught.value.hint
    assert not list((cached.cache / "images").glob("*"))
    assert not list((cached.cache / "building").glob("*"))


@pytest.mark.parametrize("number", ERRNOS)
def test_a_lock_file_that_cannot_be_written_is_told(tmp_path, monkeypatch, number):
    monkeypatch.setattr(Path, "write_bytes", failing(number, ["qemu.lock"])(Path.write_bytes))
    with pytest.raises(StorageError, match=r"qemu\.lock"):
        write_lock(tmp_path / "qemu.lock", ())


def test_a_small_disk_is_told_with_what_is_free(cached, disk, monkeypatch):
    def made(_self, _recipe, _sysroot, _scratch, result):
        (result / "program").write_bytes(bytes(1 << 20))

    monkeypatch.setattr(ImageStore, "_made", made)
    small = ImageStore(disk)
    with pytest.raises(
        StorageError, match=r"the build of qemu cannot be written to .*No space left on device; .* free"
    ):
        small.build("qemu", lambda _: None)
    assert not list((disk / "building").glob("*"))
    assert shutil.disk_usage(disk).free > 100_000


def test_what_tar_says_of_a_full_disk_is_told_as_that(disk, image_store):
    deb = max((image_store.cache / "debs").glob("*.deb"), key=lambda path: path.stat().st_size)
    with pytest.raises(
        StorageError, match=rf"{deb.name} cannot be written to {disk}.*No space left on device"
    ) as caught:
        Sysroot.unpack([deb], disk / "packages", lock=0)
    assert caught.value.errno == errno.ENOSPC
    assert "free there" in caught.value.message


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_what_apt_says_of_its_disk_is_told_as_that(tmp_path, monkeypatch, number):
    said = f"E: Write error - write (28: {os.strerror(number)})"
    done = subprocess.CompletedProcess([], 100, "", said)
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_named: done)
    with pytest.raises(StorageError, match="what apt-get fetches cannot be written to") as caught:
        Archive(tmp_path / "apt", ["trixie"]).download([], tmp_path)
    assert caught.value.errno == number


def test_what_a_program_says_of_something_else_is_no_matter_of_the_disk():
    assert said_by_program("tar: damaged archive; Permission denied", "it", Path("/")) is None
