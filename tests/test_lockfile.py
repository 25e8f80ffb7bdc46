"""Locks between real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from harness import lockfile
from harness.errors import InfraError, WaitTimeout
from harness.lockfile import exclusive, exclusive_now, shared

#: Holds the lock file argv[2] by the function argv[1] until its stdin ends.
HOLDER = """
import subprocess, sys
from pathlib import Path
from harness import lockfile
def tell(line): print(line, flush=True)
with getattr(lockfile, sys.argv[1])(Path(sys.argv[2]), "the thing", tell):
    child = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL) if "child" in sys.argv else None
    tell("held" if child is None else f"held {child.pid}")
    sys.stdin.read()
    if child is not None:
        child.kill()
"""

WAITING = "the thing: waiting for another that is at it"

Holder = subprocess.Popen


@pytest.fixture
def path(tmp_path):
    return tmp_path / "locks" / "thing.lock"


@pytest.fixture
def hold(path) -> Iterator[Callable[..., Holder]]:
    """Start a process that holds the lock; its stdout tells when it does."""
    with ExitStack() as stack:

        def start(how: str, *more: str) -> Holder:
            command = [sys.executable, "-c", HOLDER, how, str(path), *more]
            holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(holder)
            stack.callback(holder.kill)
            return holder

        yield start


def told(holder: Holder) -> str:
    return holder.stdout.readline().rstrip()


def free(path) -> bool:
    with exclusive_now(path) as held:
        return held


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(lockfile, "WAIT_S", 0.1)


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("exclusive", "exclusive", False),
        ("exclusive", "shared", False),
        ("shared", "exclusive", False),
        ("shared", "shared", True),
    ],
)
def test_only_who_shares_it_has_it_with_another(first, second, together, hold, path) -> None:
    holder = hold(first)
    assert told(holder) == "held"
    assert not free(path)
    other = hold(second)
    if together:
        assert told(other) == "held"
        holder.communicate()
        assert not free(path), "the other still has it"
    else:
        assert told(other) == WAITING
        holder.communicate()
        assert told(other) == "held"
    assert other.communicate() == ("", None)
    assert free(path)


@pytest.mark.parametrize("how", ["exclusive", "shared"])
def test_it_ends_with_its_holder(how, hold, path) -> None:
    holder = hold(how)
    assert told(holder) == "held"
    other = hold("exclusive")
    assert told(other) == WAITING
    holder.kill()
    assert told(other) == "held"


def test_it_is_not_inherited(hold, path) -> None:
    holder = hold("exclusive", "child")
    child = int(told(holder).removeprefix("held "))
    try:
        holder.kill()
        holder.wait()
        assert free(path)
    finally:
        os.kill(child, signal.SIGTERM)


@pytest.mark.parametrize(("mine", "theirs"), [(exclusive, "exclusive"), (exclusive, "shared"), (shared, "exclusive")])
def test_a_wait_is_told_once_and_has_an_end(mine, theirs, hold, path, impatient) -> None:
    assert told(hold(theirs)) == "held"
    said: list[str] = []
    with pytest.raises(WaitTimeout, match="thing.lock"), mine(path, "the thing", said.append):
        pass
    assert said == [WAITING]


def test_a_free_lock_is_taken_without_a_word(path) -> None:
    for lock in (exclusive, shared):
        with lock(path, "the thing", pytest.fail):
            assert not free(path)
        assert free(path)


def test_it_holds_within_one_process_too(path, impatient) -> None:
    with exclusive_now(path) as held:
        assert held
        assert not free(path)
        with pytest.raises(WaitTimeout), shared(path, "the thing", lambda _: None):
            pass
    with shared(path, "the thing", pytest.fail), shared(path, "the thing", pytest.fail):
        assert not free(path)


def test_an_error_lets_go_of_it(path) -> None:
    for lock in (lambda: exclusive(path, "x", pytest.fail), lambda: shared(path, "x", pytest.fail)):
        with pytest.raises(ZeroDivisionError), lock():
            raise ZeroDivisionError
        assert free(path)


def test_a_cache_that_cannot_be_written_is_told_with_what_to_do(tmp_path):
    (tmp_path / "file").touch()
    for hold in (lambda path: exclusive(path, "it", print), lambda path: shared(path, "it", print), exclusive_now):
        with pytest.raises(InfraError, match="cannot be written") as caught, hold(tmp_path / "file" / "x.lock"):
            pass
        assert "VTD_CACHE" in str(caught.value)
