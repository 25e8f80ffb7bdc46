"""Sending frames back until a number of them or a word, on an interface in the test's hands."""

import pytest
import traffic
from protocol import Refused

OWN, THEIRS = b"\x02" * 6, b"\x04" * 6
WORD = b"\xff" * 4 + b"over"


class Interface:
    """A packet socket that has `frames` to give; `full` of what is sent finds no room in the interface's queue."""

    def __init__(self, frames, full=0):
        self.frames = list(frames)
        self.full = full
        self.sent = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def getsockname(self):
        return ("eth0", traffic.ETHERTYPE, 0, 1, OWN)

    def recvfrom(self, _size):
        sender, payload, kind = self.frames.pop(0)
        return b"\xff" * 6 + sender + b"\x88\xb5" + payload, ("eth0", traffic.ETHERTYPE, kind, 1, sender)

    def send(self, frame):
        if self.full:
            self.full -= 1
            raise BlockingIOError
        self.sent.append(frame)


def echo(monkeypatch, coming, *, full=0, **asked):
    """Echo what is `coming`, and then nothing more."""
    interface = Interface(coming, full)
    monkeypatch.setattr(traffic, "netdev_of", lambda _bdf: "eth0")
    monkeypatch.setattr(traffic, "bring_up", lambda _name, _s: None)
    monkeypatch.setattr(traffic, "_packet_socket", lambda _name: interface)
    monkeypatch.setattr(traffic.select, "select", lambda *_: ([interface] if interface.frames else [], [], []))
    events = []
    answer = traffic.Traffic(events.append).echo(bdf="0000:01:00.0", timeout_s=0.05, **asked)
    assert [event["state"] for event in events] == ["ready"]
    return answer, interface


def theirs(*payloads):
    return [(THEIRS, payload, 0) for payload in payloads]


def test_frames_come_back_as_they_were_until_the_word(monkeypatch):
    answer, interface = echo(monkeypatch, theirs(b"one", b"two", WORD + b"rest", b"three"), until=WORD.hex())

    assert answer == {"netdev": "eth0", "frames": 3, "ended": True}
    assert [frame[14:] for frame in interface.sent] == [b"one", b"two", WORD + b"rest"]
    assert {frame[:14] for frame in interface.sent} == {b"\xff" * 6 + OWN + b"\x88\xb5"}


def test_a_number_of_frames_ends_it_too(monkeypatch):
    answer, interface = echo(monkeypatch, theirs(b"one", b"two", b"three"), frames=2)

    assert (answer["frames"], answer["ended"]) == (2, True)
    assert len(interface.frames) == 1


@pytest.mark.parametrize("asked", [{"frames": 5}, {"until": WORD.hex()}])
def test_what_ends_by_time_says_so(monkeypatch, asked):
    answer, _ = echo(monkeypatch, theirs(b"one", b"x" + WORD), **asked)

    assert (answer["frames"], answer["ended"]) == (2, False)


def test_its_own_frames_are_not_sent_back(monkeypatch):
    own = [(OWN, b"looped by the NIC", 0), (THEIRS, b"seen on its way out", traffic.socket.PACKET_OUTGOING)]
    answer, interface = echo(monkeypatch, [*own, *theirs(b"one")], frames=1)

    assert answer["frames"] == 1
    assert [frame[14:] for frame in interface.sent] == [b"one"]


def test_a_word_that_could_not_be_sent_back_does_not_end_it(monkeypatch):
    answer, _ = echo(monkeypatch, theirs(WORD, WORD), full=1, until=WORD.hex())

    assert answer == {"netdev": "eth0", "frames": 1, "ended": True}


@pytest.mark.parametrize("asked", [{}, {"until": ""}])
def test_an_echo_without_an_end_is_refused(asked):
    with pytest.raises(Refused, match="echo needs frames or until"):
        traffic.Traffic(print).echo(bdf="0000:01:00.0", **asked)
