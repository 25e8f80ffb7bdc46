"""Frames that are sent back while something else is done, with both ends of the wire in the test's hands."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from harness.sharing import stream as streaming
from harness.sharing.stream import Stream
from harness.waiting import Deadline, wait_for
from harness.wire import Wire


class Guest:
    """Answers each frame with what `answer` makes of it; None for silence."""

    def __init__(self, wire, answer):
        self._end = socket.socket(fileno=os.dup(wire.qemu_fd))
        self._end.settimeout(0.05)
        self._answer = answer
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while not self._over.is_set():
            try:
                frame = self._end.recv(65536)
            except TimeoutError:
                continue
            answer = self._answer(frame)
            if answer is not None:
                self._end.send(b"\x11" * 60)  # something else on the wire
                self._end.send(answer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        self._end.close()


@pytest.fixture(autouse=True)
def soon_lost(monkeypatch):
    monkeypatch.setattr(streaming, "_BACK_S", 0.1)


def number(frame):
    return int.from_bytes(frame[14:18], "big")


def pumped(answer, done):
    """Pump until `done` holds; gives the stream."""
    with Wire("w") as wire, Guest(wire, answer):
        stream = Stream(wire, 100)
        thread = threading.Thread(target=stream.pump)
        thread.start()
        wait_for("the frames", lambda: done(stream), Deadline.after(10))
        stream.stop()
        thread.join()
        return stream


def test_each_frame_is_sent_when_the_one_before_is_back():
    stream = pumped(lambda frame: frame, lambda stream: stream.came_back() >= 20)

    assert [frame[0] for frame in stream.frames] == list(range(len(stream.frames)))
    assert all(payload == back for _, _, _, payload, back in stream.frames)
    assert len({payload for _, _, _, payload, _ in stream.frames}) == len(stream.frames)
    times = [moment for _, sent, came, _, _ in stream.frames for moment in (sent, came)]
    assert times == sorted(times)


def test_a_frame_that_is_lost_is_told_and_the_next_one_sent():
    stream = pumped(lambda frame: None if number(frame) == 3 else frame, lambda stream: stream.came_back() >= 8)

    assert [(frame[0], frame[2] is None, frame[4] is None) for frame in stream.frames[2:5]] == [
        (2, False, False),
        (3, True, True),
        (4, False, False),
    ]
    assert not stream.dried_up


def test_a_frame_that_is_changed_on_its_way_has_another_digest():
    stream = pumped(lambda frame: frame[:40] + b"\0" * 60 + frame[100:], lambda stream: stream.came_back() >= 2)

    assert all(payload != back for _, _, _, payload, back in stream.frames)


def test_after_three_that_are_lost_no_further_one_is_sent():
    stream = pumped(lambda frame: frame if number(frame) < 2 else None, lambda stream: stream.dried_up)

    assert [frame[2] is None for frame in stream.frames] == [False, False, True, True, True]


def test_the_word_that_ends_it_is_told_when_it_is_back():
    word = b"\xff" * 4 + b"over"
    with Wire("w") as wire, Guest(wire, lambda frame: frame):
        assert Stream(wire, 100).end(word)
    with Wire("w") as wire, Guest(wire, lambda _: None):
        assert not Stream(wire, 100).end(word)
