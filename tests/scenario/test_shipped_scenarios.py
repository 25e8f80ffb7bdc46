"""The scenarios that are shipped, with the real steps and devices."""

from __future__ import annotations

from pathlib import Path

import harness.catalog  # noqa: F401  # registers steps and devices
from harness.scenario.device import DEVICES
from harness.scenario.load import load_all
from harness.scenario.schema import json_schema
from harness.scenario.step import STEPS

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def test_all_of_them_are_right_and_have_names_of_their_own():
    variants = load_all(sorted(SCENARIOS.glob("*.yaml")))
    ids = [variant.id for variant in variants]
    assert len(ids) >= 20
    assert len(set(ids)) == len(ids)


def test_each_step_and_device_is_used_by_one_of_them():
    variants = load_all(sorted(SCENARIOS.glob("*.yaml")))
    used = {step.keyword for variant in variants for step in variant.scenario.steps}
    assert used == set(STEPS)
    models = {device.model for variant in variants for device in variant.scenario.devices.values()}
    assert models == set(DEVICES)


def test_the_schema_describes_each_step_and_device():
    schema = json_schema()
    steps = schema["properties"]["steps"]["items"]["anyOf"]
    described = [schema["$defs"][step["$ref"].rsplit("/", 1)[1]] for step in steps]
    assert len(described) == len(list(STEPS))
    assert all(step["description"] and step["required"] for step in described)
