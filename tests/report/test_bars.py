"""Charts as shapes: what is longest, what is best, and how the others compare."""

from __future__ import annotations

import pytest

from harness.report.bars import draw, ratios


def chart(*values, better="more", samples=None):
    bars = [
        {"label": f"nic{number}", "value": value, "samples": list((samples or {}).get(number, ()))}
        for number, value in enumerate(values)
    ]
    return {"title": "Throughput", "unit": "frames/s", "better": better, "bars": bars}


def test_lengths_are_shares_of_the_longest_sample_and_rows_follow_each_other():
    [drawn] = draw([chart(10.0, 40.0, samples={0: (8.0, 10.0, 12.0), 1: (30.0, 40.0, 60.0)})])

    assert [(bar.label, bar.length, bar.low, bar.high) for bar in drawn.bars] == [
        ("nic0", 50.0, 40.0, 60.0),
        ("nic1", 200.0, 150.0, 300.0),
    ]
    assert [bar.y for bar in drawn.bars] == [0, 26]
    assert (drawn.height, drawn.title, drawn.unit) == (52, "Throughput", "frames/s")


def test_a_bar_without_samples_has_no_spread():
    [drawn] = draw([chart(10.0, 40.0)])

    assert [(bar.length, bar.low, bar.high) for bar in drawn.bars] == [(75.0,) * 3, (300.0,) * 3]


@pytest.mark.parametrize(("better", "best"), [("more", "nic1"), ("less", "nic2")])
def test_the_best_is_marked_alone(better, best):
    [drawn] = draw([chart(5.0, 7.0, 3.0, better=better)])

    assert [bar.label for bar in drawn.bars if bar.best] == [best]


def test_one_of_equals_is_marked():
    [drawn] = draw([chart(5.0, 5.0)])

    assert [bar.best for bar in drawn.bars] == [True, False]


def test_zeros_are_drawn_and_compared_with_nothing():
    [drawn] = draw([chart(0.0, 0.0, samples={0: (0.0, 0.0)})])

    assert [(bar.length, bar.low, bar.high, bar.value) for bar in drawn.bars] == [(0.0, 0.0, 0.0, "0.00")] * 2
    assert drawn.told == ""
    assert ratios(chart(0.0, 7.0)) == ""
    assert ratios(chart(7.0, 0.0)) == "nic1 0.00x nic0"


def test_each_is_compared_with_the_first():
    assert ratios(chart(2.0, 7.4, 10.4)) == "nic1 3.70x nic0, nic2 5.20x nic0"
    assert ratios(chart(2.0)) == ""
    assert draw([chart(2.0, 7.4)])[0].told == "nic1 3.70x nic0"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0.00"),
        (1.234, "1.23"),
        (9.99, "9.99"),
        (9.996, "10.0"),
        (12.34, "12.3"),
        (99.96, "100"),
        (1234.5, "1234"),
    ],
)
def test_a_value_has_three_digits_or_no_point(value, written):
    [drawn] = draw([chart(value)])

    assert drawn.bars[0].value == written


def test_a_chart_without_bars_is_left_out():
    assert draw([chart(), {"title": "x", "unit": "y", "better": "more"}]) == ()
