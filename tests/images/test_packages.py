from __future__ import annotations

import hashlib
from contextlib import contextmanager

import pytest

from harness.errors import ImageError
from harness.images.apt import Archive, host_mirror
from harness.images.lock import Package
from harness.images.packages import Order, Stock
from harness.images.recipe import QemuRecipe


def _package(name: str, version: str) -> Package:
    return Package(name, version, hashlib.sha256(f"{name} {version}".encode()).hexdigest())


class ForgetfulArchive:
    """An archive that holds `packages`; real ones forget versions, but not when a test wants it."""

    label = "trixie"

    def __init__(self, *packages: Package, content: str | None = None):
        self.packages, self.content, self.fetched = packages, content, 0

    @contextmanager
    def opened(self, progress):
        del progress
        self.fetched += 1
        yield self

    def closure(self, packages):
        del packages
        return tuple(package.name for package in self.packages)

    def available(self, names):
        return tuple(package for package in self.packages if package.name in names)

    def download(self, packages, into):
        files = {}
        for package in packages:
            files[package] = into / package.name
            files[package].write_text(self.content or f"{package.name} {package.version}")
        return files


RECIPE = QemuRecipe(kind="qemu", suite="trixie", packages=("aa",), files=("x",), program="x", data=())
OLD, NEW, SAME = _package("aa", "1"), _package("aa", "2"), _package("b", "1")


def test_locked_packages_are_taken_and_then_come_from_the_stock(tmp_path, said):
    archive, stock = ForgetfulArchive(OLD, SAME), Stock(tmp_path)
    taken = stock.obtain(RECIPE, Order("x", (OLD, SAME)), archive, said.append)
    assert {package: file.read_text() for package, file in taken.debs.items()} == {OLD: "aa 1", SAME: "b 1"}
    assert not taken.replaced
    assert stock.obtain(RECIPE, Order("x", (OLD, SAME)), archive, said.append) == taken
    assert archive.fetched == 1


def test_a_locked_version_that_is_gone_is_said_and_replaced_by_the_newest(tmp_path, said):
    taken = Stock(tmp_path).obtain(RECIPE, Order("x", (OLD, SAME)), ForgetfulArchive(NEW, SAME), said.append)
    assert set(taken.debs) == {NEW, SAME}
    assert taken.replaced == ("aa 1 -> 2",)
    assert "x: LOCKED PACKAGES ARE GONE from Debian trixie, taking its newest instead:" in said
    assert "    aa 1 -> 2" in said
    assert "    to lock these: harness images repin x" in said


def test_a_locked_version_that_the_archive_changed_under_its_name_counts_as_gone(tmp_path, said):
    changed = Package("aa", "1", _package("aa", "1 rebuilt").sha256)
    archive = ForgetfulArchive(changed, content="aa 1 rebuilt")
    taken = Stock(tmp_path).obtain(RECIPE, Order("x", (OLD,)), archive, said.append)
    assert taken.replaced == ("aa 1 -> 1 with another digest",)


def test_without_a_lock_the_newest_are_taken_and_it_is_said(tmp_path, said):
    taken = Stock(tmp_path).obtain(RECIPE, Order("x", None), ForgetfulArchive(NEW), said.append)
    assert set(taken.debs) == {NEW}
    assert taken.replaced == ("no lock file",)
    assert "x: NOT LOCKED, taking the newest packages of Debian trixie" in said


def test_a_damaged_package_file_is_fetched_again(tmp_path, said):
    stock = Stock(tmp_path)
    file = stock.obtain(RECIPE, Order("x", (OLD,)), ForgetfulArchive(OLD), said.append).debs[OLD]
    file.write_text("damaged")
    assert stock.obtain(RECIPE, Order("x", (OLD,)), ForgetfulArchive(OLD), said.append).debs[OLD].read_text() == "aa 1"


def test_a_delivery_with_another_digest_is_refused_and_not_kept(tmp_path, said):
    archive = ForgetfulArchive(OLD, content="evil")
    with pytest.raises(ImageError, match="aa 1 has another digest"):
        Stock(tmp_path).obtain(RECIPE, Order("x", (OLD,)), archive, said.append)
    assert list(tmp_path.iterdir()) == []


def test_apt_refuses_an_archive_that_is_not_signed(tmp_path, said):
    suite = tmp_path / "mirror/dists/trixie/main/binary-amd64"
    suite.mkdir(parents=True)
    (suite / "Packages").write_text("")
    (tmp_path / "mirror/dists/trixie/Release").write_text("Suite: trixie\nComponents: main\nArchitectures: amd64\n")
    archive = Archive(tmp_path / "apt/trixie", ["trixie"], mirror=f"file:{tmp_path}/mirror")
    with pytest.raises(ImageError, match="not signed"), archive.opened(said.append):
        pytest.fail("an archive without a signature was opened")


def test_an_archive_that_cannot_be_reached_is_an_error_with_a_remedy(tmp_path, said, monkeypatch):
    monkeypatch.setenv("VTD_MIRROR", f"file:{tmp_path}/nowhere")
    archive = Archive(tmp_path / "apt/trixie", ["trixie"])
    with pytest.raises(ImageError, match="nowhere") as caught, archive.opened(said.append):
        pytest.fail("an archive that is not there was opened")
    assert "VTD_MIRROR" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("told", "mirror"),
    [
        ("file:/a/debian-security/\nfile:/b/debian/\n", "file:/b/debian"),
        ("mirror+file:/etc/mirrors/debian\n", "mirror+file:/etc/mirrors/debian"),
    ],
)
def test_the_mirror_is_the_hosts_own(told, mirror, tmp_path, monkeypatch):
    _fake_apt(told, tmp_path, monkeypatch)

    assert host_mirror() == mirror


def test_a_host_without_debians_archive_is_told_to_name_a_mirror(tmp_path, monkeypatch):
    _fake_apt("file:/archive/ubuntu/\n", tmp_path, monkeypatch)

    with pytest.raises(ImageError) as caught:
        host_mirror()
    assert "VTD_MIRROR" in str(caught.value.hint)


def _fake_apt(told, directory, monkeypatch):
    (directory / "told").write_text(told)
    program = directory / "apt-get"
    program.write_text(f"#!/bin/sh\ncat {directory}/told\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
