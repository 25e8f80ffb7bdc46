from __future__ import annotations

import os
import time

import pytest

from harness.images import checked
from harness.images.checked import first_wrong
from harness.images.packages import sha256


@pytest.fixture
def build(tmp_path, monkeypatch):
    """A directory with two files, their digests, and a counter of digests that were computed."""
    directory = tmp_path / "build"
    (directory / "lib").mkdir(parents=True)
    (directory / "qemu").write_bytes(b"binary")
    (directory / "lib" / "so").write_bytes(b"library")
    digests = {name: sha256(directory / name) for name in ("qemu", "lib/so")}
    computed = []
    monkeypatch.setattr(checked, "sha256", lambda path: computed.append(path.name) or sha256(path))
    monkeypatch.setattr(checked, "_SETTLED_NS", -60_000_000_000)
    return directory, digests, computed, tmp_path / "checked" / "build.json"


def test_untouched_files_are_read_once(build):
    directory, digests, computed, memory = build
    assert first_wrong(directory, digests, memory) is None
    assert first_wrong(directory, digests, memory) is None
    assert computed == ["qemu", "so"]


def test_a_change_is_found_even_if_size_and_time_are_put_back(build):
    directory, digests, _, memory = build
    assert first_wrong(directory, digests, memory) is None
    before = (directory / "lib" / "so").stat()
    time.sleep(0.02)  # the kernel stamps inodes by ticks of up to 10 ms
    (directory / "lib" / "so").write_bytes(b"LIBRARY")
    os.utime(directory / "lib" / "so", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert first_wrong(directory, digests, memory) == "lib/so"


def test_a_missing_file_and_another_digest_are_found(build):
    directory, digests, _, memory = build
    assert first_wrong(directory, digests, memory) is None
    assert first_wrong(directory, digests | {"qemu": "0" * 64}, memory) == "qemu"
    (directory / "qemu").unlink()
    assert first_wrong(directory, digests, memory) == "qemu"


def test_a_damaged_memory_is_not_believed(build):
    directory, digests, computed, memory = build
    assert first_wrong(directory, digests, memory) is None
    memory.write_text("{")
    assert first_wrong(directory, digests, memory) is None
    assert len(computed) == 4


def test_a_file_that_changed_just_now_is_not_remembered(build, monkeypatch):
    directory, digests, _, memory = build
    monkeypatch.setattr(checked, "_SETTLED_NS", 2_000_000_000)
    assert first_wrong(directory, digests, memory) is None
    assert not memory.exists()
