"""Judging one step by evidence that was made for it."""

from __future__ import annotations

from harness.catalog import steps_of
from harness.evidence import Entry
from harness.judgement import Judgement
from harness.testimony import hear
from harness.verdict import Outcome
from tests.judge.recording import Recording


def judgement(step: dict, recording: Recording, devices=("nic",), model: str = "e1000e") -> Judgement:
    """Give what the step says of the entries of `recording`, between its markers."""
    definition = {
        "scenario": "x",
        "title": "x",
        "devices": {name: {"model": model, "plugged": False} for name in devices},
        "steps": [step],
    }
    opened = Recording()
    for data in (entry["data"] for entry in recording.entries if entry["source"] == "observation"):
        if "device" in data and "source_id" in data:
            opened.add("runner", "device", name=data["device"], source_id=data["source_id"])
    opened.begin(0)
    opened.entries += recording.entries
    opened.end(0)
    entries = [Entry(**data, line=number) for number, data in enumerate(opened.entries, start=1)]
    [built] = steps_of(definition)
    return built.judge(hear(entries).steps[0])


def judge(step: dict, recording: Recording, devices=("nic",), model: str = "e1000e") -> Outcome:
    """Give the outcome of that."""
    return judgement(step, recording, devices, model).outcome


def denying(step: dict, recording: Recording, devices=("nic",), model: str = "e1000e") -> set[str]:
    """Give the witnesses that do not confirm it."""
    found = judgement(step, recording, devices, model).witnesses
    return {witness.name for witness in found if witness.verdict.value != "confirms"}
