"""A cache of templates that cannot be written: one sentence with what, where and what to do, and nothing half made."""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from harness.errors import InfraError, StorageError
from harness.machine.template import RAM
from harness.templates import making, store
from harness.templates.making import RECORD
from harness.templates.store import Templates
from tests.templates import example
from tests.templates.example import ingredients

ERRNOS = [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT]

#: What fails: whose attribute, and in what path.
PLACES = {
    "the lock": (Path, "mkdir", "/locks"),
    "the maker's directory": (Path, "mkdir", "/making"),
    "the boot's evidence": (Path, "mkdir", "/evidence"),
    "the private directory": (tempfile, "mkdtemp", "/making"),
    "the memory": (Path, "open", f"/{RAM}"),
    "the record": (Path, "write_bytes", RECORD),
    "the record's rename": (os, "replace", RECORD),
    "the rename": (Path, "rename", "/making"),
}


def failing(holder, name, place, number):
    real = getattr(holder, name)

    def act(*arguments, **named):
        if place in " ".join(map(str, (*arguments, *named.values()))):
            raise OSError(number, os.strerror(number))
        return real(*arguments, **named)

    return act


def use(cache):
    with Templates(cache).ready(ingredients(), cache / "evidence", lambda _: None, nullcontext):
        pass


def left(cache):
    return [path for path in (cache / "templates").rglob("*") if path.name != "making"]


@pytest.mark.parametrize("number", ERRNOS)
@pytest.mark.parametrize("place", PLACES)
def test_every_write_of_a_template_tells_what_and_where(tmp_path, monkeypatch, place, number):
    monkeypatch.setattr(store, "make", example.make)
    holder, name, path = PLACES[place]
    with monkeypatch.context() as broken:
        broken.setattr(holder, name, failing(holder, name, path, number))
        with pytest.raises(StorageError) as caught:
            use(tmp_path)
    assert caught.value.errno == number
    assert str(tmp_path) in caught.value.message
    assert os.strerror(number) in caught.value.message
    assert caught.value.hint
    assert not left(tmp_path)
    use(tmp_path)


@pytest.mark.parametrize("number", ERRNOS)
@pytest.mark.parametrize(("holder", "name"), [(Path, "touch"), (os, "truncate")])
def test_the_memory_of_a_real_template_that_cannot_be_made_is_told(tmp_path, monkeypatch, holder, name, number):
    monkeypatch.setattr(making, "_make_room", lambda *_: None)
    monkeypatch.setattr(holder, name, failing(holder, name, f"/{RAM}", number))
    with pytest.raises(StorageError, match="template debian-13 .* cannot be written to"):
        use(tmp_path)
    monkeypatch.undo()
    assert not left(tmp_path)


def test_a_template_that_has_no_room_on_a_real_disk_is_told_before_its_boot(disk):
    with pytest.raises(InfraError, match=rf"a template needs \d+ MiB below {disk}.*; 0 MiB are free"):
        use(disk)
    assert not left(disk)


def test_a_disk_that_is_full_in_the_middle_of_a_template_is_told(disk, monkeypatch):
    monkeypatch.setattr(store, "make", example.make)
    with pytest.raises(
        StorageError, match=rf"template debian-13 .* cannot be written to {disk}.*No space left"
    ) as caught:
        use(disk)
    assert "free there" in caught.value.message
    assert not left(disk)
