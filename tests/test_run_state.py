"""Events against what was asked for, and halts that no QEMU at hand can be brought to: a scripted peer tells them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from harness import run_state
from harness.errors import MachineHalted
from harness.machine.vitals import Vitals
from harness.qmp import Monitor
from harness.run_state import RunState
from tests.test_qmp import Peer, event, scripted


def told(*happened: str | dict[str, Any]) -> str | None:
    """The event that is a surprise, after commands (words) and events (messages; expected ones are marked so)."""
    state = RunState()
    for each in happened:
        if isinstance(each, str):
            state.asked(each)
        else:
            state.saw(each, expected=each.get("expected", False))
    found = state.surprise()
    return found.event if found else None


STOP, RESUME = event("STOP"), event("RESUME")
RESET = event("RESET", guest=False, reason="host-qmp-system-reset")


def expected(message: dict[str, Any]) -> dict[str, Any]:
    return {**message, "expected": True}


@pytest.mark.parametrize(
    ("happened", "surprise"),
    [
        ([], None),
        (["cont", RESUME], None),
        (["cont", RESUME, "stop", STOP, "cont", RESUME], None),
        (["cont", RESUME, STOP], "STOP"),
        (["cont", RESUME, STOP, RESUME], "STOP"),
        (["cont", RESUME, "stop", STOP, RESUME], "RESUME"),
        ([RESUME], "RESUME"),
        ([STOP], "STOP"),
        (["cont", RESUME, expected(STOP)], None),
        (["cont", RESUME, expected(STOP), RESUME], "RESUME"),
        (["cont", RESUME, expected(STOP), "cont", RESUME, STOP], "STOP"),
        (["stop", STOP, "system_reset", RESET], None),
        (["stop", STOP, "system_reset", RESET, RESET], "RESET"),
        (["cont", RESUME, "system_reset", event("RESET", guest=True, reason="guest-reset")], "RESET"),
        (["cont", RESUME, expected(RESET)], None),
        (["cont", RESUME, "quit", event("SHUTDOWN", guest=False, reason="host-qmp-quit")], None),
        (["cont", RESUME, event("DEVICE_DELETED", device="a"), event("NIC_RX_FILTER_CHANGED")], None),
    ],
)
def test_what_was_asked_for_is_no_surprise_and_all_else_is(happened, surprise) -> None:
    assert told(*happened) == surprise


@pytest.mark.parametrize("name", sorted(run_state._NEVER_ASKED))
@pytest.mark.parametrize("before", [["cont", RESUME], ["stop", STOP], ["quit"]])
def test_an_event_that_is_never_asked_for_is_told_and_not_the_halt_that_it_causes(name, before) -> None:
    assert told(*before, event(name, action="pause"), STOP) == name


def test_a_shutdown_is_told_only_once_qemu_has_not_ended(monkeypatch) -> None:
    monkeypatch.setattr(run_state, "_END_S", 0.1)
    state = RunState()
    state.saw(event("SHUTDOWN", guest=True, reason="guest-reset"), expected=False)
    assert state.surprise() is None
    assert "guest-reset" in state.last_words().text
    time.sleep(0.15)
    assert state.surprise().event == "SHUTDOWN"


class Alive:
    """A process that runs and has said what KVM says."""

    def state(self) -> str:
        return "S"

    def cpu_s(self) -> dict[str, float]:
        return {"CPU 0/KVM": 3.0}

    def stderr_text(self) -> str:
        return "KVM internal error. Suberror: 1\nemulation failure\n"


def halts(happening: dict[str, Any], state: str):
    """A peer that halts when it is asked for its name."""

    def script(peer: Peer, request: dict[str, Any]) -> None:
        if request["execute"] == "query-name":
            peer.send(happening)
        answer = {"status": state, "running": False} if request["execute"] == "query-status" else {}
        peer.send({"return": answer, "id": request["id"]})

    return scripted(script)


@pytest.mark.parametrize("state", ["internal-error", "io-error", "watchdog", "guest-panicked", "paused", "suspended"])
def test_the_run_state_is_asked_for_and_told_with_qemus_words(state) -> None:
    with halts(STOP, state) as (monitor, _):
        vitals = Vitals(Alive(), monitor)
        monitor.execute("cont")
        assert vitals.halted() is None
        monitor.execute("query-name")
        halt = vitals.halted()
        assert (halt.state, halt.event) == (state, "STOP")
        error = halt.error("KVM internal error. Suberror: 1\n", ["last line"])
        assert isinstance(error, MachineHalted)
        assert all(word in str(error) for word in (f"'{state}'", "Suberror: 1", "last line"))


def test_a_memory_failure_is_told_with_what_it_hit() -> None:
    happening = event("MEMORY_FAILURE", recipient="guest", action="inject", flags={})
    with halts(happening, "running") as (monitor, _):
        monitor.execute("query-name")
        halt = Vitals(Alive(), monitor).halted()
        assert halt.event == "MEMORY_FAILURE"
        assert "recipient guest" in halt.text


def test_how_all_stands_is_told_where_qmp_does_not_answer(monkeypatch) -> None:
    from harness.machine import vitals

    monkeypatch.setattr(vitals, "_ANSWER_S", 0.2)
    with scripted(lambda _peer, _request: None) as (monitor, _):
        watched = Vitals(Alive(), monitor)
        text = watched.told()
        assert "QEMU's process sleeps; QMP gives no answer" in text
        assert "CPU 0/KVM 3.00 s" in text
        watched.begin()
        assert "CPU 0/KVM 0.00 s" in watched.told()


def test_a_process_that_is_held_is_told_after_a_second_and_not_looked_at_all_the_time() -> None:
    looks: list[float] = []
    now = [0.0]

    class Held(Alive):
        letter = "T"

        def state(self) -> str:
            looks.append(now[0])
            return self.letter

    held = Held()
    watched = Vitals(held, Monitor.__new__(Monitor), clock=lambda: now[0])
    for tick in range(100):
        now[0] = tick / 100
        assert watched.stopped() is None
    assert len(looks) == 4
    now[0] = 1.1
    assert "(T)" in watched.stopped().text
    now[0] = 1.2
    assert watched.stopped() is not None, "it does not look again, and what it saw holds"
    held.letter = "S"
    now[0] = 2.0
    assert watched.stopped() is None
