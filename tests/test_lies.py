"""What the far ends may say, made at random: nothing but HarnessErrors, and memory that is bounded.

A seed is told where a message breaks something. `VTD_FUZZ=100000` sends as many messages as that to each half.
"""

from __future__ import annotations

import json
import os
import random
import struct
import tracemalloc
from queue import SimpleQueue

import pytest

from harness.agent_link import AgentLink
from harness.answers import ANSWERS, EVENTS, Named
from harness.errors import HarnessError, SshError
from harness.evidence import GuestJournal, Journal
from harness.lab.host_log import HostLog
from harness.lab.lending import Loan, _given_back, _taken
from harness.lab.survey import _TOLD as SURVEYED
from harness.lab.survey import take_survey
from harness.nested.kept import KeptProcess

#: All halves together send 100,000 where that is asked for; a tenth takes some seconds.
MESSAGES = int(os.environ.get("VTD_FUZZ", "2500"))

#: Bytes that a half may keep beyond what it had: a queue of answers, some lines.
KEPT = 16 << 20

ODD = [
    *(None, True, False, 0, -1, 1 << 63, 1 << 64, 10**400, 0.5, float("nan"), float("inf"), "", "x", "\ud800", "\x00"),
    *("7", [], {}, [[]], {"result": 7}, {"": {}}, "ff", "fff", [None], "0000:01:00.0", "x" * 5000),
]


def of_shape(shape, dice):  # noqa: PLR0911 - one for each kind of shape
    """A value of the shape, which may be odd in places."""
    if dice.random() < 0.03:
        return dice.choice(ODD)
    match shape:
        case tuple():
            return of_shape(dice.choice(shape), dice)
        case None:
            return None
        case list():
            return [of_shape(shape[0], dice) for _ in range(dice.randrange(4))]
        case Named():
            return {dice.choice("abct"): of_shape(shape.shape, dice) for _ in range(dice.randrange(3))}
        case dict():
            made = {key: of_shape(each, dice) for key, each in shape.items() if dice.random() > 0.02}
            return made | (
                {dice.choice(["t", "guest", "kind", "source", "self", "x"]): 1} if dice.random() < 0.03 else {}
            )
    return {int: dice.randrange(1 << 40), str: "text", bytes: "00ff", bool: True}[shape]


def announcement(dice):
    made = of_shape(dice.choice(list(EVENTS.values())), dice)
    return made if isinstance(made, dict) else {"odd": made}


def line_of(message, dice):
    """It as JSON, at times cut, changed in a byte or nested."""
    if dice.random() < 0.002:
        return dice.choice(["[", '{"a":', "[1,"]) * dice.randrange(1, 200_000)
    text = json.dumps(message)
    kind = dice.random()
    if kind < 0.05:
        return text[: dice.randrange(len(text) + 1)]
    if kind < 0.15 and text:
        at = dice.randrange(len(text))
        return text[:at] + chr(dice.choice([0, 34, 44, 48, 57, 91, 93, 123, 125, 0x20AC, 0xD800])) + text[at + 1 :]
    return text


class Far:
    """A channel whose far end says what it is told."""

    def __init__(self):
        self.lines = []

    def send_line(self, line):
        self.asked = json.loads(line)

    def send_eof(self):
        pass

    def stderr_text(self):
        return "not a word"

    def close(self):
        pass

    def read_line(self, _deadline, _abort=()):
        return self.lines.pop(0) if self.lines else None


@pytest.fixture
def bounded():
    tracemalloc.start()
    yield
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < KEPT


def each(half, count=MESSAGES):
    """Go through `half` with messages, and say which seed broke it."""
    good = 0
    for seed in range(count):
        try:
            half(random.Random(seed))  # noqa: S311 - no secret
            good += 1
        except HarnessError:
            pass
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    return good


def test_the_agents_link(tmp_path, bounded):
    with Journal(tmp_path / "journal.jsonl") as journal:
        own = GuestJournal(journal, "alice")

        def announce(message):
            own.record("agent", str(message["event"]), **{k: v for k, v in message.items() if k != "event"})

        def half(dice):
            far = Far()
            agent = AgentLink(far, on_event=announce, on_call=lambda call: own.record("agent", "call", **call))
            op = dice.choice(sorted(ANSWERS))
            event = {**announcement(dice), "event": dice.choice([*EVENTS, "call"])}
            error = {"id": 1, "error": dice.choice([{"reason": "x", "errno": 10**30}, {"reason": 7}, *ODD])}
            answer = {"id": dice.choice([1, 1, 1, 1, 0, -1, "1", True, 10**30]), "ok": of_shape(ANSWERS[op], dice)}
            far.lines = [line_of(dice.choice([event, answer, answer, error]), dice) for _ in range(3)]
            told = agent.call(op)
            if op == "kmsg":
                for entry in told["entries"]:
                    own.record("kmsg", "line", **entry)
            if op == "bounces_seen":
                own.record("observation", "bounces", function="x", before={}, **told)

        good = each(half)
        assert good > MESSAGES / 10
    entries = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert all(isinstance(json.loads(entry)["t"], float) for entry in entries)


def test_the_keepers_near_half(tmp_path, bounded):
    class Channel(Far):
        data = ()

        def read(self, _deadline):
            return self.data.pop(0) if self.data else b""

    def half(dice):
        kept = KeptProcess.__new__(KeptProcess)
        kept.argv, kept._status, kept._lost, kept._answers = ("qemu",), None, None, SimpleQueue()
        kept._sinks = {1: lambda _: None}
        kept._channel = Channel()
        messages = [{"started": 5}, {"exit": 0}, {"scratch": "00ff"}, {"failed": "no"}, {"exit": dice.choice(ODD)}]
        frames = []
        for _ in range(4):
            text = line_of(dice.choice([*messages, dice.choice(ODD)]), dice).encode(errors="surrogatepass")
            length = len(text) if dice.random() > 0.05 else dice.choice([0, 1, 1 << 20, (1 << 32) - 1])
            frames.append(struct.pack("!BI", dice.choice([0, 0, 0, 1, 7]), length) + text)
        kept._channel.data = frames
        kept._receive()
        assert kept._lost is None or isinstance(kept._lost, HarnessError)
        kept.poll()
        kept.failure()
        if not kept._answers.empty():
            answer = kept._answers.get()
            assert len(answer) == 1
        if kept._lost is not None and not isinstance(kept._lost, SshError):
            raise kept._lost

    assert each(half) > MESSAGES / 20


LOG = {"entries": [{"seq": int, "priority": int, "us": int, "text": str}], "lost": bool}


def test_the_lab_hosts_log(tmp_path, bounded):
    with Journal(tmp_path / "journal.jsonl") as journal:

        def half(dice):
            far = Far()
            far.lines = [line_of(dice.choice([of_shape(LOG, dice)] * 5 + [{"failed": dice.choice(ODD)}]), dice)]
            HostLog(far, journal).mark("x")

        assert each(half) > MESSAGES / 10


def test_the_lender_and_the_surveyor(tmp_path, bounded, monkeypatch):
    nic = {"address": str, "driver": (str, None), "group": (str, None), "id": str}
    told = [{"lending": nic}, {"lent": int}, {"refused": str, "hint": str}]
    told.append({"returned": Named((str, None)), "kept": Named([(str, None)])})

    class Record:
        def record(self, *_args, **data):
            json.dumps(data)

    def half(dice):
        far = Far()
        shape = dice.choice([SURVEYED, SURVEYED, told])
        if shape is told:
            far.lines = [line_of(of_shape(dice.choice(told), dice), dice) for _ in range(4)]
            _taken(far)
            _given_back(far, {"a": Loan("a", None, "1", "x")}, Record())
        else:
            far.lines = [line_of(of_shape(SURVEYED, dice), dice)]
            monkeypatch.setattr("harness.lab.survey.start_program", lambda *_, **__: far)
            survey = take_survey(None)
            list(survey.needs())
            list(survey.nic_needs())

    assert each(half) > MESSAGES / 20
