"""Pacing by the kernel's rate limit, with the clock in the test's hands."""

from __future__ import annotations

import pytest

from harness import log_allowance
from harness.log_allowance import LOGGED_FAULTS, WINDOW_S, LogAllowance


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def wait_until(self, moment):
        self.now = max(self.now, moment)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(log_allowance.time, "monotonic", clock.monotonic)
    monkeypatch.setattr(log_allowance, "wait_until", clock.wait_until)
    return clock


def test_a_window_has_room_for_three_faults(clock):
    allowance = LogAllowance()

    assert [allowance.take() for _ in range(LOGGED_FAULTS)] == [0, 0, 0]
    assert allowance.take() == pytest.approx(WINDOW_S)


def test_the_window_begins_with_its_first_fault(clock):
    allowance = LogAllowance()
    allowance.take()
    clock.now += WINDOW_S - 1
    allowance.take()
    allowance.take()

    assert allowance.take() == pytest.approx(1)


def test_an_old_window_costs_nothing(clock):
    allowance = LogAllowance()
    for _ in range(LOGGED_FAULTS):
        allowance.take()
    clock.now += WINDOW_S

    assert [allowance.take() for _ in range(LOGGED_FAULTS)] == [0, 0, 0]


def test_a_storm_uses_the_window_up(clock):
    allowance = LogAllowance()
    allowance.take(everything=True)

    assert allowance.take() == pytest.approx(WINDOW_S)
