from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest

from harness.bench.figures import NAMES, Figure, document, ratio, slope
from harness.bench.goals import GOALS, has_number, spread, table
from harness.bench.page import PAGE, PLOT, write_page


def test_the_document_has_the_documented_keys_and_each_figure_its_samples(contents):
    assert contents["schema"] == 1
    assert contents["template_speedup"] == 24.0
    assert contents["cost_per_scenario_s"] == {"10": 1.5, "100": 1.6, "1000": None}
    assert set(contents["samples"]) == set(NAMES) <= set(contents)
    assert contents["samples"]["overhead"] == {"harness_s": [1.7], "plain_s": [1.6]}
    assert json.loads(json.dumps(contents)) == contents


def test_what_is_missing_is_null_with_its_reason(contents):
    assert contents["scenarios_per_minute"] == {"1": None, "2": None}
    assert contents["missing"] == {
        "bare_faults_per_second": "not asked for",
        "scenarios_per_minute": "QEMU <ended>\nsee its log",
        "cost_per_scenario_s": "no time",
    }
    nothing = document({}, quick=True, facts={})
    assert all(not has_number(nothing[name]) for name in NAMES)
    assert set(nothing["missing"].values()) == {"not asked for"}
    assert nothing["quick"] is True


def test_a_ratio_is_that_of_medians_and_a_slope_is_that_of_the_best_line():
    assert ratio([1, 8, 100], [2, 4, 5]) == 2
    assert slope([(1, 72.0), (2, 100.0), (3, 128.0)]) == pytest.approx(28.0)
    with pytest.raises(ValueError, match="two points"):
        slope([(1, 72.0)])


@pytest.mark.parametrize(
    ("name", "value", "reached"),
    [
        ("template_speedup", 20.0, True),
        ("template_speedup", 19.9, False),
        ("overhead", 1.05, True),
        ("overhead", 1.06, False),
        ("pss_mib_per_guest", 171.0, False),
        ("collect_ratio", 2.0, True),
        ("scenarios_per_minute", {"1": 50.0, "2": 39.0}, False),
        ("scenarios_per_minute", {"1": 20.0, "2": 40.0}, True),
        ("scenarios_per_minute", {"1": 20.0, "2": None}, None),
        ("cost_per_scenario_s", {"10": 1.0, "100": 1.09, "1000": 1.0}, True),
        ("cost_per_scenario_s", {"10": 1.0, "100": 1.2, "1000": 1.0}, False),
        ("cost_per_scenario_s", {"10": 1.0, "100": 1.0, "1000": None}, None),
    ],
)
def test_goals(name, value, reached):
    assert GOALS[name].reached(value) is reached


def test_the_spread_of_costs_does_not_care_which_is_dearest():
    assert spread({"10": 2.0, "100": 1.0}) == spread({"10": 1.0, "100": 2.0}) == 1.0


def test_the_table_tells_goals_reached_missed_and_unknown(contents):
    lines = {line.split()[0]: line for line in table(contents)}
    assert "24.0 : 1" in lines["template_speedup"]
    assert "reached: at least 20 : 1" in lines["template_speedup"]
    assert "MISSED: at most 1.05" in lines["overhead"]
    assert lines["scenarios_per_minute"].endswith("QEMU <ended>")
    assert "not told: within 10 % (no time)" in lines["cost_per_scenario_s"]
    assert table(document({"overhead": Figure(value=1.0)}, quick=False, facts={}))[0].startswith("overhead")


def test_the_page_shows_every_figure_and_the_plot_every_sample(contents, tmp_path):
    write_page(tmp_path, contents)
    svg = ET.parse(tmp_path / PLOT)  # noqa: S314 - our own
    space = "{http://www.w3.org/2000/svg}"
    dots = list(svg.iter(f"{space}circle"))
    assert len(dots) == sum(len(given) for samples in contents["samples"].values() for given in samples.values())
    width = float(svg.getroot().get("width"))
    assert all(0 < float(dot.get("cx")) < width for dot in dots)
    page = (tmp_path / PAGE).read_text()
    assert all(goal.title in page for goal in GOALS.values())
    assert "QEMU &lt;ended&gt;" in page
    assert "<ended>" not in page


def test_the_page_can_be_made_of_nothing(tmp_path):
    write_page(
        tmp_path, document({}, quick=True, facts={"started": "now", "host": {"qemu": "1", "accelerator": "tcg"}})
    )
    assert "a quick look" in (tmp_path / PAGE).read_text()
