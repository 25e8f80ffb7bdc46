from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from harness import bounds
from harness.agent_link import AgentLink
from harness.answers import ANSWERS
from harness.errors import AgentError, BoundExceeded, OperationRefused, SshError, WaitTimeout
from harness.waiting import Abort, Deadline


class ScriptedChannel:
    """Hands out given lines; a None among them is a line that does not come in time."""

    def __init__(self, *lines: str | None) -> None:
        self.lines = list(lines)
        self.sent: list[dict[str, Any]] = []

    def send_line(self, line: str) -> None:
        self.sent.append(json.loads(line))

    def read_line(self, deadline: Deadline, abort: Sequence[Abort] = ()) -> str | None:
        del deadline, abort
        if not self.lines:
            return None
        line = self.lines.pop(0)
        if line is None:
            raise WaitTimeout("a line", waited_s=0.0)
        return line


def link(*lines: str | None) -> tuple[AgentLink, ScriptedChannel, list[dict[str, Any]], list[dict[str, Any]]]:
    channel = ScriptedChannel(*lines)
    events: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    return AgentLink(channel, on_event=events.append, on_call=calls.append), channel, events, calls


def announced(name="dma", **changes):
    """An announcement as the agent makes it."""
    told = {
        "event": name,
        "device": "a",
        "bdf": "0000:01:00.0",
        "via": "vfio",
        "dma": 1,
        "direction": "to-memory",
        "address": 4096,
        "length": 64,
        "purpose": "attack",
        "time_ns": 1,
        "registers": {"count": 64},
        "doorbell": {"register": 152, "value": 3},
        "rings": [],
    }
    return json.dumps({**told, **changes})


def test_announcements_come_before_the_answer_and_calls_are_recorded() -> None:
    agent, channel, events, calls = link(announced(length=64), announced(length=4), '{"id": 1, "ok": {"done": true}}')
    assert agent.call("dma", device="a", op_size=4) == {"done": True}
    assert channel.sent == [{"id": 1, "op": "dma", "args": {"device": "a", "op_size": 4}}]
    assert [event["length"] for event in events] == [64, 4]
    assert calls[0]["op"] == "dma"
    assert calls[0]["ok"] == {"done": True}


def test_a_refusal_carries_reason_and_errno() -> None:
    agent, _, _, calls = link('{"id": 1, "error": {"reason": "VFIO_IOMMU_MAP_DMA: File exists", "errno": 17}}')
    with pytest.raises(OperationRefused) as caught:
        agent.call("map")
    assert (caught.value.operation, caught.value.errno) == ("map", 17)
    assert "File exists" in calls[0]["error"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("Segmentation fault", "not JSON"),
        ("[" * 100_000, "nested deeper"),
        ('{"id": 1, "ok": ' + '{"a":' * 100 + "1" + "}" * 101, "nested deeper"),
        ('{"id": 1, "ok": {"a": NaN}}', "no number"),
        ('{"id": 1, "ok": {"a": 1e999}}', "no number"),
        ('{"id": 1, "ok": {"a": ' + "9" * 5000 + "}}", "not JSON"),
        ('{"id": 1, "ok": {"a": ' + "9" * 50 + "}}", "more than 64 bits"),
        ('{"id": 1, "ok": {"a": "\\ud800"}}', "surrogate"),
        ('{"id": 1, "ok": [' + "[]," * 500_000 + "1]}", "more than 400,000 values"),
        ('"' + "x" * (5 << 20) + '"', "a line of more than"),
        ('{"id": 1, "ok": {"t": 5}}', "the journal says itself"),
        ('{"event": "call", "op": "hello"}', "unknown event"),
        ('{"event": "dma", "length": "64"}', "device is missing"),
        (announced(length="64"), "length is 64, not of type int"),
        (announced(length=True), "not of type int"),
        (announced(t=0.0), "the journal says itself"),
        ("[1, 2]", "list instead of an object"),
        ('{"id": 2, "ok": {}}', "something else"),
        ('{"hello": 1}', "something else"),
        ('{"id": 1}', "neither 'ok' nor 'error'"),
        ('{"id": 1, "ok": 5}', "neither 'ok' nor 'error'"),
        ('{"id": 1, "error": "no"}', "neither 'ok' nor 'error'"),
        (None, None),
    ],
)
def test_whatever_else_the_agent_says_is_an_error(line, says) -> None:
    agent, *_ = link(line)
    with pytest.raises(AgentError if says else WaitTimeout, match=says):
        agent.call("dma")


def ended(last_words: Callable[[], str]) -> AgentLink:
    return AgentLink(ScriptedChannel(), on_event=lambda _: None, last_words=last_words)


def test_an_agent_that_ended_is_told_with_its_last_words() -> None:
    with pytest.raises(AgentError, match=r"ended during 'dma': Traceback: it went wrong$"):
        ended(lambda: "Traceback: it went wrong\n").call("dma")


def test_an_agent_that_ended_without_a_word_is_told_all_the_same() -> None:
    with pytest.raises(AgentError, match=r"ended during 'dma'$"):
        ended(lambda: "\n").call("dma")


def test_last_words_that_cannot_be_had_do_not_hide_the_end() -> None:
    def lost() -> str:
        raise SshError("the connection was lost")

    with pytest.raises(AgentError, match=r"ended during 'dma'$"):
        ended(lost).call("dma")


def test_an_answer_after_the_deadline_is_dropped_by_the_next_call() -> None:
    agent, _, events, _ = link(None, announced(), '{"id": 1, "ok": {"late": true}}', '{"id": 2, "ok": {"late": false}}')
    with pytest.raises(WaitTimeout):
        agent.call("slow")
    assert agent.call("quick") == {"late": False}
    assert len(events) == 1


def test_what_ends_the_guest_is_asked_without_waiting_and_recorded() -> None:
    agent, channel, _, calls = link()
    agent.tell("reboot", how="sysrq")
    assert channel.sent == [{"id": 1, "op": "reboot", "args": {"how": "sysrq"}}]
    assert calls == [{"op": "reboot", "args": {"how": "sysrq"}, "told": True}]


@pytest.mark.parametrize("op", sorted(ANSWERS))
@pytest.mark.parametrize("answer", [{}, {"result": 7}, dict.fromkeys(("pages", "entries", "hex", "groups"), 7)])
def test_an_answer_of_another_shape_is_told_with_what_is_wrong(op, answer):
    agent, *_ = link(json.dumps({"id": 1, "ok": answer}))
    with pytest.raises(AgentError, match=rf"answer to '{op}'"):
        agent.call(op)


@pytest.mark.parametrize("entry", [{"seq": 1}, {"seq": 1, "priority": 2, "us": 3, "text": "x", "t": 0.0}, 7])
def test_a_record_of_the_log_is_whole_and_cannot_set_the_time(entry):
    agent, *_ = link(json.dumps({"id": 1, "ok": {"entries": [entry], "lost": False}}))
    with pytest.raises(AgentError):
        agent.call("kmsg")


def test_announcements_without_end_are_an_error(monkeypatch):
    monkeypatch.setattr(bounds, "EVENTS_PER_CALL", 100)
    agent, _, events, _ = link(*[announced()] * 200)
    with pytest.raises(BoundExceeded, match="more than 100 announcements on its 'dma'"):
        agent.call("dma")
    assert len(events) == 100


def test_late_answers_without_end_are_an_error(monkeypatch):
    monkeypatch.setattr(bounds, "CALL_BYTES", 10_000)
    agent, *_ = link(None, *['{"id": 1, "ok": {"a": "' + "x" * 500 + '"}}'] * 100)
    with pytest.raises(WaitTimeout):
        agent.call("slow")
    with pytest.raises(BoundExceeded, match="more than 10,000 characters"):
        agent.call("dma")
