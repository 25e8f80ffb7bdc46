from __future__ import annotations

import pytest

from harness.bench.figures import Figure, document

HOST = {"qemu": "10.0.2", "accelerator": "tcg"}


@pytest.fixture
def contents():
    """What a whole benchmark writes."""
    figures = {
        "collect_ratio": Figure(value=1.8, samples={"variants_s": [0.9, 1.0], "trivial_s": [0.5, 0.6]}),
        "template_speedup": Figure(value=24.0, samples={"cold_s": [4.8, 5.0], "template_s": [0.2, 0.21]}),
        "overhead": Figure(value=1.12, samples={"harness_s": [1.7], "plain_s": [1.6]}),
        "pss_mib_per_guest": Figure(value=28.0, samples={"1_guests_mib": [72.0], "2_guests_mib": [100.0]}),
        "scenarios_per_minute": Figure.absent("scenarios_per_minute", "QEMU <ended>\nsee its log"),
        "cost_per_scenario_s": Figure(
            value={"10": 1.5, "100": 1.6, "1000": None}, samples={"10_s": [1.5], "100_s": [1.6]}, missing="no time"
        ),
    }
    return document(figures, quick=False, facts={"started": "2026-11-23T20:00:00+00:00", "host": HOST})
