"""`harness images build`: what is built beside what, and what ends it."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import cli
from harness.cli import prepare
from harness.errors import ImageError


@pytest.fixture
def store(monkeypatch):
    """A store of images whose builds are what a test says, `what(name)`, on a host with two cores."""
    built = []

    def install(what):
        def build(name, progress):
            progress(f"{name}: building")
            what(name)
            built.append(name)
            return Path("/images") / name

        made = SimpleNamespace(
            usual_names=lambda: ("a", "b", "disk"),
            stages=lambda names: (tuple(set(names) - {"disk"}), tuple(set(names) & {"disk"})),
            build=build,
        )
        monkeypatch.setattr(prepare, "ImageStore", lambda: made)
        monkeypatch.setattr(prepare, "cores", lambda: SimpleNamespace(value=2))
        return built

    return install


def test_images_are_built_beside_each_other_and_what_they_are_parts_of_after_them(store, capsys):
    meet = threading.Barrier(2, timeout=20)
    built = store(lambda name: name == "disk" or meet.wait())
    assert cli.main(["images", "build"]) == 0
    assert sorted(built[:2]) == ["a", "b"]
    assert built[2:] == ["disk"]
    told = capsys.readouterr().out.splitlines()
    assert told[-3:] == ["a: /images/a", "b: /images/b", "disk: /images/disk"]


def test_an_image_that_is_named_twice_is_built_once(store):
    built = store(str)
    assert cli.main(["images", "build", "a", "a"]) == 0
    assert built == ["a"]


def test_the_first_error_is_told_while_another_build_goes_on(store, capsys):
    going_on = threading.Event()

    def build(name):
        if name == "a":
            raise ImageError("a cannot be had")
        going_on.wait(60)

    built = store(build)
    try:
        assert cli.main(["images", "build"]) == 3
        assert built == []
    finally:
        going_on.set()
    assert "a cannot be had" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_while_builds_go_on(store, number):
    going_on, begun = threading.Event(), threading.Barrier(3, timeout=20)

    def build(name):
        begun.wait()
        going_on.wait(60)

    def interrupt():
        begun.wait()
        os.kill(os.getpid(), number)

    built = store(build)
    threading.Thread(target=interrupt).start()
    try:
        assert cli.main(["images", "build"]) == 130
        assert built == []
    finally:
        going_on.set()
