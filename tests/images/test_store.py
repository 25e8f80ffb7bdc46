"""Building for real, in caches of the tests' own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import ImageError
from harness.images.lock import read_lock
from harness.images.packages import sha256
from harness.images.recipe import recipe_path
from harness.images.store import ImageStore, cache_directory
from harness.lockfile import exclusive_now
from harness.source.diagnostics import InputError
from harness.waiting import Deadline, wait_for

pytestmark = pytest.mark.qemu

_BUILD = """
import sys
from pathlib import Path
from harness.images.store import ImageStore
def progress(line): print(line, flush=True)
print("digest", ImageStore(Path(sys.argv[1])).qemu(progress).digest, flush=True)
"""


def _builder(cache: Path) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if name != "VTD_QEMU"}
    return subprocess.Popen([sys.executable, "-c", _BUILD, str(cache)], env=env, stdout=subprocess.PIPE, text=True)


@pytest.fixture(autouse=True)
def _pinned_qemu(monkeypatch):
    monkeypatch.delenv("VTD_QEMU", raising=False)


def test_two_builders_at_once_make_one_build_that_both_use(stocked_cache):
    with _builder(stocked_cache) as first, _builder(stocked_cache) as second:
        said = [builder.communicate()[0].splitlines() for builder in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert said[0][-1] == said[1][-1]
    assert sum("qemu: building" in lines for lines in said) == 1
    assert sum("qemu: waiting for another that is at it" in lines for lines in said) == 1
    assert not list((stocked_cache / "building").iterdir())


def test_a_damaged_build_is_thrown_away_and_made_again(stocked_cache, said):
    built = ImageStore(stocked_cache).qemu(said.append)
    firmware = next((built.path.parents[2]).rglob("bios-256k.bin"))
    with firmware.open("r+b") as file:
        file.seek(1000)
        file.write(b"damaged")
    assert not ImageStore(stocked_cache).intact("qemu")
    again = ImageStore(stocked_cache).qemu(said.append)
    assert [
        line for line in said if re.fullmatch(r"qemu-.*: damaged, .*bios-256k.bin is not .*; building it anew", line)
    ]
    assert again == built
    assert ImageStore(stocked_cache).intact("qemu")


def test_what_a_killed_builder_leaves_is_never_used_and_removed_by_the_next(stocked_cache, said):
    for build in (stocked_cache / "images").glob("qemu-*"):
        (build / "image.json").unlink()  # as if it had never been finished
    with _builder(stocked_cache) as builder:
        assert builder.stdout
        for line in builder.stdout:
            if line.strip() == "qemu: building":
                _wait_for_leftover(stocked_cache / "building")
                builder.send_signal(signal.SIGKILL)
                break
    assert builder.returncode == -signal.SIGKILL
    assert list((stocked_cache / "building").glob("qemu.*"))
    assert not ImageStore(stocked_cache).intact("qemu")
    ImageStore(stocked_cache).qemu(said.append)
    assert "qemu: removing what a killed builder left" in said
    assert not list((stocked_cache / "building").iterdir())


def _wait_for_leftover(building: Path) -> None:
    wait_for("a half-built QEMU", lambda: list(building.glob("qemu.*/packages/usr/*")), Deadline.after(10))


_UNPACK = """
import sys
from pathlib import Path
from harness.images.sysroot import Sysroot
from harness.lockfile import exclusive
with exclusive(Path(sys.argv[1]), "it", print) as lock:
    Sysroot.unpack([Path("some.deb")], Path(sys.argv[2]), lock=lock)
"""

#: A tar that leaves behind what outlives its kill: a process that ends when the pipe `go` is opened.
_LINGERING_TAR = """#!/bin/sh
{ : > "$0.started"; read line < "$0.go"; } &
wait
"""


def test_the_lock_is_held_until_the_last_that_writes_for_a_killed_builder_is_gone(tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "tar").write_text(_LINGERING_TAR)
    (tools / "dpkg-deb").write_text("#!/bin/sh\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    os.mkfifo(tools / "tar.go")
    lock = tmp_path / "lock"
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    with subprocess.Popen([sys.executable, "-c", _UNPACK, lock, tmp_path / "root"], env=env) as builder:
        wait_for("tar", (tools / "tar.started").exists, Deadline.after(20))
        builder.kill()
    with exclusive_now(lock) as mine:
        assert not mine
    (tools / "tar.go").write_text("on\n")
    wait_for("the lock", lambda: _free(lock), Deadline.after(20))


def _free(lock: Path) -> bool:
    with exclusive_now(lock) as mine:
        return mine


def test_the_same_packages_give_the_same_bytes_in_another_place(image_store, stocked_cache, said):
    first = image_store.get("debian-13", said.append)
    before = os.umask(0o077)
    try:
        second = ImageStore(stocked_cache).get("debian-13", said.append)
    finally:
        os.umask(before)
    assert second.kernel != first.kernel
    assert (sha256(second.kernel), sha256(second.initrd)) == (sha256(first.kernel), sha256(first.initrd))
    assert second.digest == first.digest


@pytest.mark.usefixtures("online")
def test_a_lock_that_the_archive_has_outlived_does_not_break_the_build(stocked_cache, recipes, said):
    lock = recipes / "qemu.lock"
    lock.write_text(re.sub(r"seabios \S+ \w+", f"seabios 0.1-1 {'0' * 64}", lock.read_text()))
    store = ImageStore(stocked_cache, recipes=recipes)
    assert store.qemu(said.append).version.startswith("10.0.")
    newest = next(
        package for package in read_lock(recipe_path("qemu").with_suffix(".lock")) or () if package.name == "seabios"
    )
    assert any(line.startswith("qemu: LOCKED PACKAGES ARE GONE") for line in said)
    assert any(line.strip().startswith("seabios 0.1-1 -> ") for line in said)
    assert any(line.startswith("seabios 0.1-1 -> ") for line in store.state("qemu").replaced)
    said.clear()
    ImageStore(stocked_cache, recipes=recipes).qemu(said.append)
    assert any("not of the locked packages" in line and newest.name in line for line in said)


@pytest.mark.usefixtures("online")
def test_repin_writes_a_lock_of_the_whole_closure(stocked_cache, recipes, said):
    lock = recipes / "debian-12.lock"
    shipped = read_lock(lock)
    assert shipped
    lock.unlink()
    changed = ImageStore(stocked_cache, recipes=recipes).repin("debian-12", said.append)
    assert read_lock(lock) == changed
    assert {"busybox", "libc6", "dropbear-bin"} <= {package.name for package in changed}
    assert len([package for package in changed if package.name.startswith("linux-image-6.1.")]) == 1
    assert not ImageStore(stocked_cache, recipes=recipes).repin("debian-12", said.append)


def test_an_agent_that_changed_makes_another_image(image_store, stocked_cache, recipes, tmp_path):
    from harness.images.guest_image import AGENT, GuestSources

    agent = tmp_path / "agent"
    agent.mkdir()
    for module in AGENT.glob("*.py"):
        (agent / module.name).write_bytes(module.read_bytes())
    same = ImageStore(image_store.cache, recipes=recipes, sources=GuestSources(recipes / "guest", agent))
    same.get("debian-13", print)
    assert same.intact("debian-13")
    (agent / "agent.py").write_text("print('another')\n")
    assert not same.intact("debian-13")
    assert ImageStore(stocked_cache, recipes=recipes).state("debian-12").path is None


def test_a_qemu_named_by_the_user_is_taken(image_store, monkeypatch, tmp_path, said):
    pinned = image_store.qemu(said.append)
    named = tmp_path / "my-qemu"
    environment = " ".join(f"{name}='{value}'" for name, value in pinned.env.items())
    named.write_text(f'#!/bin/sh\n{environment} exec {" ".join(pinned.argv_prefix)} "$@"\n')
    named.chmod(0o755)
    monkeypatch.setenv("VTD_QEMU", str(named))
    qemu = image_store.qemu(said.append)
    assert (qemu.path, qemu.argv_prefix, qemu.version) == (named, (str(named),), pinned.version)


def test_the_name_of_a_qemu_recipe_takes_that_build(image_store, monkeypatch, said):
    pinned = image_store.qemu(said.append)
    for named in ("qemu", ""):
        monkeypatch.setenv("VTD_QEMU", named)
        assert image_store.qemu(said.append) == pinned
    monkeypatch.setenv("VTD_QEMU", "debian-13")
    with pytest.raises(ImageError, match="VTD_QEMU names debian-13"):
        image_store.qemu(said.append)


@pytest.mark.parametrize(("path", "message"), [("/nowhere/qemu", "not there"), ("/bin/true", "no QEMU that runs here")])
def test_a_qemu_that_is_none_is_refused(image_store, monkeypatch, path, message):
    monkeypatch.setenv("VTD_QEMU", path)
    with pytest.raises(ImageError, match=message):
        image_store.qemu(print)


def test_qemu_is_no_guest_image(image_store):
    with pytest.raises(ImageError, match="'qemu' is not a guest image"):
        image_store.get("qemu", print)
    with pytest.raises(InputError, match="no recipe for an image 'debian-11'"):
        image_store.get("debian-11", print)


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("VTD_CACHE", raising=False)
    assert cache_directory() == tmp_path / "xdg/vtd-harness"
    monkeypatch.setenv("VTD_CACHE", str(tmp_path / "named"))
    assert cache_directory() == tmp_path / "named"


def test_without_apt_the_message_says_what_is_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="apt-get, apt-cache, apt-config, dpkg-deb or tar is not here"):
        ImageStore(tmp_path / "cache").build("debian-12", print)
