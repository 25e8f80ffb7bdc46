"""Every step and device there is: importing this module makes the scenario model complete."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

import harness.devices
import harness.steps
from harness.scenario.model import Scenario
from harness.scenario.step import Step

for _package in (harness.devices, harness.steps):
    for _module in pkgutil.iter_modules(_package.__path__):
        importlib.import_module(f"{_package.__name__}.{_module.name}")


def scenario_of(definition: Mapping[str, Any]) -> Scenario:
    """Rebuild a scenario from the plain data a plan keeps; it was valid when the plan was made."""
    return Scenario.model_validate(_tuples(dict(definition)))


def steps_of(definition: Mapping[str, Any]) -> tuple[Step, ...]:
    """Rebuild the steps of a scenario from the plain data a plan keeps."""
    return scenario_of(definition).steps


def _tuples(value: Any) -> Any:
    """Turn JSON's lists into the tuples that the models take."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value
