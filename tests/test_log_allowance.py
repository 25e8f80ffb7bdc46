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


def test_no_window_that_the_kernel_may_have_begun_holds_more_faults_than_it_logs(clock):
    allowance = LogAllowance()
    provoked = []
    for pause in (0, 0.4, 4.7, 0.6, 1.2, 0.2, 3.0, 0.1, 5.2, 0, 0, 0, 0):
        clock.now += pause
        allowance.take()
        provoked.append(clock.now)

    for begin in provoked:
        assert sum(begin <= moment < begin + 5 for moment in provoked) <= LOGGED_FAULTS


def test_a_fault_that_took_its_time_counts_from_when_it_was_over(clock):
    allowance = LogAllowance()
    for _ in range(LOGGED_FAULTS):
        allowance.take()
        clock.now += 2
        allowance.over()
    clock.now += 1

    # the first was over five seconds ago
    assert allowance.take() == pytest.approx(WINDOW_S - 5)


def test_a_storm_counts_from_when_it_was_over(clock):
    allowance = LogAllowance()
    allowance.take(everything=True)
    clock.now += 3
    allowance.over()

    assert allowance.take() == pytest.approx(WINDOW_S)


def test_faults_that_nobody_booked_use_the_window_up(clock):
    allowance = LogAllowance()

    assert allowance.saw(LOGGED_FAULTS)
    assert allowance.take() == pytest.approx(WINDOW_S)


def test_waiting_for_room_books_nothing(clock):
    allowance = LogAllowance()
    allowance.saw(LOGGED_FAULTS - 1)

    assert [allowance.wait() for _ in range(LOGGED_FAULTS)] == [0, 0, 0]
    allowance.saw(1)
    assert allowance.wait() == pytest.approx(WINDOW_S)


@pytest.mark.parametrize("everything", [False, True])
def test_what_was_booked_is_no_surprise(clock, everything):
    allowance = LogAllowance()
    allowance.take(everything=everything)

    assert not allowance.saw(40 if everything else 1)
    assert allowance.saw(1)


def test_a_flood_that_nobody_booked_uses_one_window_up(clock):
    allowance = LogAllowance()
    allowance.saw(1000)

    assert allowance.take() == pytest.approx(WINDOW_S)
    assert allowance.take() == 0
