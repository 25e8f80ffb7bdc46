"""The cache of templates, with processes that share it and templates that are quickly made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import pytest

from harness.errors import InfraError
from harness.lockfile import exclusive_now, shared
from harness.machine.template import RAM, STATE
from harness.templates import store
from harness.templates.making import RECORD
from harness.templates.store import LIMIT, Templates
from harness.waiting import Deadline, wait_for
from tests.templates import example
from tests.templates.example import TAKEN, ingredients

ROOT = Path(__file__).parents[2]

NAME = "debian-13 (intel_iommu=on)"
BOOTING, WAITING = f"template {NAME}: booting", f"template {NAME}: waiting for another that is at it"


class Another:
    """Another process that gets a template (another.py) and stops where it is told to."""

    def __init__(self, cache: Path, heard: Path, vcpus: int) -> None:
        self._heard = heard
        command = [sys.executable, "-m", "tests.templates.another", str(cache), str(vcpus)]
        with heard.open("wb") as output:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=output, stderr=output, text=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def said(self) -> list[str]:
        return self._heard.read_text().splitlines()

    def hear(self, words: str) -> None:
        """Wait until it has said a line that begins with `words`."""

        def ended() -> Exception | None:
            return None if self._process.poll() is None else AssertionError(f"it ended instead: {self.said()}")

        wait_for(f"'{words}'", lambda: self.has_said(words), Deadline.after(30), abort=[ended])

    def has_said(self, words: str) -> bool:
        return any(line.startswith(words) for line in self.said())

    def go_on(self) -> None:
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Let it go on to its end."""
        self._process.stdin.close()
        assert self._process.wait(timeout=30) == 0, self.said()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(timeout=30)
        self._process.stdin.close()


@pytest.fixture
def another(tmp_path) -> Iterator[Callable[..., Another]]:
    with ExitStack() as stack:
        started: list[Another] = []

        def start(*, vcpus: int = 1) -> Another:
            process = Another(tmp_path / "cache", tmp_path / f"heard{len(started)}", vcpus)
            started.append(stack.enter_context(process))
            return process

        yield start


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv(LIMIT, raising=False)
    monkeypatch.setattr(store, "make", example.make)
    return tmp_path / "cache"


@pytest.fixture
def use(cache, said):
    """Start from a template, made if need be, and give its directory; `templates` is a process's own."""

    def once(templates=None, **machine) -> Path:
        templates = templates or Templates(cache)
        with templates.ready(ingredients(**machine), cache / "evidence", said.append, nullcontext) as template:
            assert template.ram.stat().st_size == 4 * TAKEN
            assert (template.host_public, template.greeting) == ("ssh-ed25519 AAAA", b"SSH-2.0-x\r\n")
            return template.directory

    return once


def made(said: list[str]) -> int:
    return sum(line.endswith(": booting") for line in said)


def kept(cache: Path) -> set[str]:
    """What is in the cache, by name: keys, and whatever is left of makers."""
    making = cache / "templates" / "making"
    left = {path.name for path in making.iterdir()} if making.exists() else set()
    return {path.name for path in (cache / "templates").iterdir() if path != making} | left


def test_a_template_is_made_once_and_then_found(use, cache, said) -> None:
    templates = Templates(cache)
    directory = use(templates)
    assert said == [BOOTING, f"template {NAME}: ready after 0.5 s, 1 MiB"]
    assert use(templates) == directory
    assert use() == directory
    assert made(said) == 1
    assert kept(cache) == {ingredients().key()} == {directory.name}
    assert (cache / "evidence" / "console.log").exists()


def test_another_machine_has_a_template_of_its_own(use, cache, said) -> None:
    assert use(vcpus=1) != use(vcpus=2)
    assert made(said) == 2
    assert kept(cache) == {ingredients(vcpus=count).key() for count in (1, 2)}


def test_a_user_that_fails_lets_go_of_it(cache, said) -> None:
    def fail() -> None:
        with Templates(cache).ready(ingredients(), cache / "evidence", said.append, nullcontext):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with exclusive_now(cache / "locks" / f"template-{ingredients().key()}.lock") as held:
        assert held


class TestProcesses:
    def test_of_several_one_makes_it_and_the_others_wait(self, another) -> None:
        first = another()
        first.hear("making")
        others = [another(), another()]
        for other in others:
            other.hear(WAITING)
            assert not other.has_said("using")
        first.go_on()
        for process in (first, *others):
            process.hear(f"using {ingredients().key()}")
        for other in others:
            assert other.said() == [WAITING, f"using {ingredients().key()}"]
            other.end()
        first.end()

    def test_of_two_that_find_none_one_makes_it(self, another, cache) -> None:
        with shared(cache / "locks" / f"template-{ingredients().key()}.lock", "", pytest.fail):
            both = [another(), another()]
            for process in both:
                process.hear(WAITING)  # each has looked, and now wants to make it
                assert process.said() == [WAITING]
        wait_for("one to make it", lambda: any(process.has_said("making") for process in both), Deadline.after(30))
        maker, other = sorted(both, key=lambda process: not process.has_said("making"))
        maker.end()
        other.hear("using")
        assert other.said() == [WAITING, f"using {ingredients().key()}"]

    def test_whoever_needs_another_does_not_wait(self, another) -> None:
        another(vcpus=1).hear("making")
        other = another(vcpus=2)
        other.hear("making")
        other.go_on()
        other.hear("using")
        assert not any("waiting" in line for line in other.said())

    def test_a_damaged_one_is_not_made_anew_under_who_uses_it(self, another, use) -> None:
        record = use() / RECORD
        user = another()
        user.hear("using")
        record.write_text("{}")
        other = another()
        other.hear(f"template {NAME}: damaged")
        other.hear(WAITING)
        assert not other.has_said(BOOTING)
        user.end()
        other.hear(BOOTING)
        assert user.said() == [f"using {ingredients().key()}", "done"]

    def test_one_who_waits_takes_over_when_the_maker_is_killed(self, another, use, cache, said) -> None:
        maker = another()
        maker.hear("making")
        other = another()
        other.hear(WAITING)
        maker.kill()
        other.hear("making")
        assert other.said() == [WAITING, BOOTING, "making"]
        other.end()
        use()
        assert made(said) == 0
        assert kept(cache) == {ingredients().key()}

    def test_what_a_killed_maker_left_vanishes_and_is_never_used(self, another, use, cache, said) -> None:
        maker = another()
        maker.hear("making")
        (left,) = kept(cache)
        Templates(cache)
        assert kept(cache) == {left}, "its maker is still at it"
        maker.kill()
        Templates(cache)
        assert kept(cache) == set()
        use()
        assert made(said) == 1


def flip(file: Path) -> None:
    """Change one bit of the first data, and nothing that stat tells but the times."""
    with file.open("r+b") as opened:
        offset = os.lseek(opened.fileno(), 0, os.SEEK_DATA) + 100
        byte = os.pread(opened.fileno(), 1, offset)[0]
        os.pwrite(opened.fileno(), bytes([byte ^ 1]), offset)


def fill_hole(file: Path) -> None:
    with file.open("r+b") as opened:
        os.pwrite(opened.fileno(), b"\1", 0)


def change_record(**what) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        file.write_text(json.dumps({**json.loads(file.read_text()), **what}))

    return change


def drop_key(file: Path) -> None:
    record = json.loads(file.read_text())
    del record["host_public"]
    file.write_text(json.dumps(record))


#: Which file is damaged and how, and what is told.
DAMAGE: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "ram flipped": (RAM, flip, "its ram is not what was saved"),
    "ram with more": (RAM, fill_hole, "its ram is not what was saved"),
    "ram truncated": (RAM, lambda file: os.truncate(file, 2 * TAKEN), "its ram is not what was saved"),
    "ram empty": (RAM, lambda file: os.truncate(file, 0), "its ram is not what was saved"),
    "ram gone": (RAM, Path.unlink, "it is not whole"),
    "state flipped": (STATE, flip, "its state is not what was saved"),
    "state truncated": (STATE, lambda file: os.truncate(file, 100), "its state is not what was saved"),
    "state gone": (STATE, Path.unlink, "it is not whole"),
    "record gone": (RECORD, Path.unlink, "its record cannot be read"),
    "record empty": (RECORD, lambda file: os.truncate(file, 0), "its record cannot be read"),
    "record cut off": (RECORD, lambda file: os.truncate(file, 60), "its record cannot be read"),
    "record of zeros": (RECORD, lambda file: file.write_bytes(bytes(200)), "its record cannot be read"),
    "record of no text": (RECORD, lambda file: file.write_bytes(b"\xff\xfe"), "its record cannot be read"),
    "record without a thing": (RECORD, lambda file: file.write_text("{}"), "its record cannot be read"),
    "record that is a list": (RECORD, lambda file: file.write_text("[]"), "its record cannot be read"),
    "record without a key": (RECORD, drop_key, "its record cannot be read"),
    "record of no bytes": (RECORD, change_record(greeting="SSH"), "its record cannot be read"),
    "record of nothing": (RECORD, change_record(greeting=None), "its record cannot be read"),
    "record without digests": (RECORD, change_record(files={}), "its record cannot be read"),
    "record with digests in a list": (RECORD, change_record(files=[]), "its record cannot be read"),
    "record with another digest": (RECORD, change_record(files={RAM: "0", STATE: "0"}), "its ram and state is not"),
}


class TestDamage:
    @pytest.mark.parametrize("name", DAMAGE)
    def test_it_is_told_thrown_away_and_made_anew(self, name, use, cache, said) -> None:
        file, damage, words = DAMAGE[name]
        directory = use()
        intact = {path.name: path.read_bytes() for path in directory.iterdir()}
        damage(directory / file)
        said.clear()
        assert use() == directory
        damaged, *rest = said
        assert damaged.startswith(f"template {NAME}: damaged, {words}")
        assert damaged.endswith("; making it anew")
        assert rest == [BOOTING, f"template {NAME}: ready after 0.5 s, 1 MiB"]
        assert {path.name: path.read_bytes() for path in directory.iterdir()} == intact
        assert kept(cache) == {directory.name}

    @pytest.mark.parametrize("name", [name for name, (file, *_) in DAMAGE.items() if file != RECORD])
    def test_a_process_that_has_used_it_sees_it_too(self, name, use, cache, said) -> None:
        file, damage, words = DAMAGE[name]
        templates = Templates(cache)
        damage(use(templates) / file)
        use(templates)
        assert f"template {NAME}: damaged, {words}" in said[2]
        assert made(said) == 2

    def test_its_digests_are_taken_once_by_each_process(self, use, cache, monkeypatch) -> None:
        use()
        taken = []
        monkeypatch.setattr(store, "digest", lambda path: taken.append(path.name) or example.digest(path))
        templates = Templates(cache)
        use(templates)
        use(templates)
        assert taken == [RAM, STATE]


class TestLimit:
    @staticmethod
    def age(directory: Path, seconds: int) -> None:
        """Let the last use of a template have been long ago."""
        os.utime(directory / RECORD, (1e9 - seconds, 1e9 - seconds))

    def test_the_least_recently_used_go_first(self, use, cache, said, monkeypatch) -> None:
        monkeypatch.setenv(LIMIT, "3")
        first, second = use(vcpus=1), use(vcpus=2)
        self.age(first, 100)
        self.age(second, 200)
        third = use(vcpus=3)  # each takes a MiB and a little
        assert kept(cache) == {first.name, third.name}
        assert said[-1] == f"template {second.name}: removed, the limit for templates is 3 MiB ({LIMIT})"

    def test_a_use_makes_it_the_most_recently_used(self, use, cache, monkeypatch) -> None:
        monkeypatch.setenv(LIMIT, "3")
        first, second = use(vcpus=1), use(vcpus=2)
        self.age(first, 200)
        self.age(second, 100)
        use(vcpus=1)
        third = use(vcpus=3)
        assert kept(cache) == {first.name, third.name}

    def test_as_many_as_it_takes_go_but_never_the_newest(self, use, cache, monkeypatch) -> None:
        use(vcpus=1)
        use(vcpus=2)
        monkeypatch.setenv(LIMIT, "0")
        use(vcpus=1)
        assert len(kept(cache)) == 2, "one that is found breaks no limit"
        newest = use(vcpus=3)
        assert kept(cache) == {newest.name}

    def test_within_the_limit_all_stay(self, use, cache, monkeypatch) -> None:
        monkeypatch.setenv(LIMIT, "4")
        assert {use(vcpus=count).name for count in (1, 2, 3)} == kept(cache)

    def test_those_in_use_stay(self, use, another, cache, monkeypatch) -> None:
        used = use(vcpus=1)
        user = another(vcpus=1)
        user.hear("using")
        monkeypatch.setenv(LIMIT, "1")
        self.age(used, 100)
        second = use(vcpus=2)
        assert kept(cache) == {used.name, second.name}
        user.end()
        third = use(vcpus=3)
        assert kept(cache) == {third.name}

    def test_the_disk_limits_them_too(self, use, cache, said, monkeypatch) -> None:
        use(vcpus=1)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=TAKEN))
        second = use(vcpus=2)
        assert kept(cache) == {second.name}
        assert "the limit for templates is 1 MiB" in said[-1]

    @pytest.mark.parametrize("told", ["", "lots", "-1", "1.5", "6 GiB", "²"])
    def test_a_limit_that_is_no_number_is_told_before_anything_is_made(self, told, use, cache, monkeypatch) -> None:
        monkeypatch.setenv(LIMIT, told)
        with pytest.raises(InfraError, match=f"^{LIMIT} is '{told}'") as caught:
            use()
        assert caught.value.hint == "set it to a number of MiB"
        assert not (cache / "templates").exists()


@pytest.mark.parametrize("error", [InfraError("QEMU does not start"), KeyboardInterrupt(), ZeroDivisionError()])
def test_a_template_that_cannot_be_made_leaves_nothing(error, use, cache, said, monkeypatch) -> None:
    def fail(*given) -> float:
        example.make(*given)
        raise error

    monkeypatch.setattr(store, "make", fail)
    with pytest.raises(type(error)):
        use()
    assert kept(cache) == set()
    monkeypatch.setattr(store, "make", example.make)
    use()
    assert said[:2] == [BOOTING, BOOTING]


def test_a_template_evicted_before_its_use_is_made_again_beside_the_evidence_of_the_first(cache, said, monkeypatch):
    """What another process may do between the making, which is done alone, and the use, which is shared."""
    templates, looks = Templates(cache), []
    intact = Templates._intact

    def evicted_once(self, key, name, progress):
        looks.append(key)
        if len(looks) == 3:  # before: nobody has it, nobody has made it meanwhile
            shutil.rmtree(cache / "templates" / key)
        return intact(self, key, name, progress)

    monkeypatch.setattr(Templates, "_intact", evicted_once)
    with templates.ready(ingredients(), cache / "evidence", said.append, nullcontext) as template:
        assert template.ram.exists()
    assert made(said) == 2


def test_an_eviction_that_is_cut_off_leaves_nothing_that_counts_as_a_template(cache, use, monkeypatch):
    directory = use()
    monkeypatch.setattr("harness.templates.store._remove", lambda _: None)
    Templates(cache)._discard(directory)
    assert not directory.exists()
    monkeypatch.undo()
    Templates(cache)
    assert not list((cache / "templates" / "making").iterdir())
