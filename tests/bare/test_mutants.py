"""Mutants: evidence or expectation with one thing changed must not pass; a changed recipe must change the verdict."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.evidence import JOURNAL, VariantDirectory
from harness.judge import judge_variant
from harness.verdict import Conformance, Outcome, Verdict
from tests.bare.mutation import Entry, Flip, bits, flipped, judged, of, put, run

pytestmark = pytest.mark.qemu

SCENARIO = """
scenario: mutants
title: Three faults and a silent refusal
machine: {kind: bare, translation: legacy, iommu: {intremap: on, aw_bits: 48}}
devices: {rogue: {model: edu}, peer: {model: edu}}
steps:
  - provoke: {device: rogue, write: 64, break: {entry: context, field: present, value: 0}}
    expect: {blocked: {reason: context-not-present}}
  - provoke: {device: rogue, read: 64, at: 0x20000}
    expect: blocked
  - provoke: {device: peer, write: 64, break: {entry: leaf, field: write, value: 0}}
    expect: {blocked: {reason: pte-write}}
  - provoke:
      device: rogue
      write: 64
      break:
        - {entry: context, field: fault_processing_disable, value: 1}
        - {entry: leaf, field: write, value: 0}
    expect: silent
counter_proof: [unbroken]
"""


@pytest.fixture(scope="module")
def recorded(host, tmp_path_factory) -> Path:
    path = run(host, tmp_path_factory.mktemp("recorded"), SCENARIO, prove=True)
    verdict = judge_variant(VariantDirectory(path))
    assert verdict.outcome is Outcome.PASS, verdict.reason
    assert [each.conformance for each in verdict.provoked] == [Conformance.AS_SPEC] * 4
    assert verdict.counter_proofs == {"unbroken": "red"}
    return path


@pytest.fixture
def copy(recorded, tmp_path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "copy"))


#: What a witness says of the attack of a reported fault, with one thing changed.
FLIPS: dict[str, Flip] = {
    "register: reason": of("register", "fault", bits("high", 1 << 32)),
    "register: source ID": of("register", "fault", bits("high", 0x8)),
    "register: access": of("register", "fault", bits("high", 1 << 62)),
    "register: address": of("register", "fault", bits("low", 1 << 12)),
    "register: no fault": of("register", "fault", bits("high", 1 << 63)),
    "register: nothing pending": of("register", "fault", bits("fsts", 0b10)),
    "register: overflow": of("register", "fault", bits("fsts", 0b1)),
    "trace: reason": of("trace", "fault", bits("reason", 1)),
    "trace: source ID": of("trace", "fault", put("source_id", "01:01.0")),
    "trace: access": of(
        "trace", "fault", lambda data: data.update(access={"read": "write"}.get(data["access"], "read"))
    ),
    "trace: address": of("trace", "fault", bits("first", 1 << 13)),
    "recorded: reason": of("trace", "recorded", bits("reason", 1)),
    "recorded: source ID": of("trace", "recorded", put("source_id", "01:01.0")),
    "announced: address": of("agent", "dma", bits("address", 1 << 12)),
    "announced: length": of("agent", "dma", put("length", 32)),
    "announced: direction": of("agent", "dma", put("direction", "sideways")),
    "announced: device": of("agent", "dma", put("bdf", "0000:01:01.0")),
    "memory: other bytes": of("memory", "read", put("sha256", "0" * 64)),
    "memory: another place": of("memory", "read", bits("gpa", 1 << 12)),
    "phase: no end": of("observation", "phase-end", put("name", "another")),
}


@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize("flip", FLIPS)
def test_evidence_with_one_thing_changed_does_not_pass(copy, step, flip):
    if flip == "phase: no end":
        entries = (copy / JOURNAL).read_text().splitlines(keepends=True)
        ends = [line for line in entries if '"phase-end"' in line and f'"step": {step}' in line]
        (copy / JOURNAL).write_text("".join(line for line in entries if line != ends[1]))
    else:
        assert flipped(copy, step, "attack", FLIPS[flip])
    assert judged(copy).outcome in (Outcome.FAIL, Outcome.ERROR)


@pytest.mark.parametrize(
    ("source", "kind"),
    [("register", "fault"), ("trace", "fault"), ("trace", "recorded"), ("agent", "dma"), ("observation", "bytes")],
)
@pytest.mark.parametrize("step", range(3))
def test_a_witness_that_is_missing_is_an_error(copy, step, source, kind):
    journal = copy / JOURNAL
    lines, now, left = journal.read_text().splitlines(keepends=True), "", []
    for line in lines:
        entry = json.loads(line)
        if entry["step"] == step and entry["kind"] == "phase":
            now = entry["data"]["name"]
        if not (entry["step"] == step and now == "attack" and (entry["source"], entry["kind"]) == (source, kind)):
            left.append(line)
    assert len(left) < len(lines)
    journal.write_text("".join(left))
    assert judged(copy).outcome is Outcome.ERROR


def test_a_silent_refusal_without_its_trace_or_with_a_report_does_not_pass(copy, tmp_path):
    other = Path(shutil.copytree(copy, tmp_path / "other"))
    assert flipped(copy, 3, "attack", of("trace", "disabled", put("count", 0)))
    journal = copy / JOURNAL
    journal.write_text(
        "".join(line for line in journal.read_text().splitlines(keepends=True) if '"disabled"' not in line)
    )
    assert judged(copy).outcome is not Outcome.PASS
    assert flipped(other, 3, "attack", of("register", "fault", bits("high", 1 << 63 | 0x100)))
    assert judged(other).outcome is not Outcome.PASS


@pytest.mark.parametrize("phase", ["control", "healed"])
def test_a_control_that_did_not_land_is_an_error(copy, phase):
    def spoil(data: Entry) -> None:
        for place in data["places"]:
            place["after"] = place["before"]

    assert flipped(copy, 0, phase, of("observation", "bytes", spoil))
    assert judged(copy).outcome is Outcome.ERROR


def expecting(path: Path, step: int, **changes: Any) -> Verdict:
    """Judge the evidence with another expectation or another request in the plan."""
    file = path / "plan.json"
    plan = json.loads(file.read_text())
    definition = plan["definition"]["steps"][step]
    for key, value in changes.items():
        where = definition if key == "expect" else definition["provoke"]
        where.pop({"read": "write", "write": "read"}.get(key, ""), None)
        where[key] = value
    file.write_text(json.dumps(plan))
    return judged(path)


@pytest.mark.parametrize(
    ("step", "changes"),
    [
        (0, {"expect": {"blocked": {"reason": "context-invalid"}}}),
        (0, {"expect": "silent"}),
        (0, {"expect": "landed"}),
        (0, {"device": "peer"}),
        (0, {"read": 64}),
        (0, {"write": 32}),
        (0, {"at": 0x20000}),
        (1, {"expect": {"blocked": {"reason": "root-not-present"}}}),
        (1, {"at": 0x21000}),
        (1, {"device": "peer"}),
        (1, {"write": 64}),
        (2, {"expect": {"blocked": {"reason": "paging-entry-reserved"}}}),
        (2, {"device": "rogue"}),
        (3, {"expect": {"blocked": {"reason": "pte-write"}}}),
        (3, {"expect": "landed"}),
    ],
)
def test_another_expectation_over_the_same_evidence_does_not_pass(copy, step, changes):
    verdict = expecting(copy, step, **changes)
    assert verdict.outcome in (Outcome.FAIL, Outcome.ERROR)


def test_a_deviation_is_known_only_for_the_versions_it_names(copy):
    deviation = {
        "spec": {"blocked": {"reason": "context-invalid"}},
        "qemu": {"blocked": {"reason": "context-not-present"}},
        "why": "as the test says",
    }
    verdict = expecting(copy, 0, expect=deviation)
    assert (verdict.outcome, verdict.provoked[0].conformance) == (Outcome.PASS, Conformance.KNOWN_DEVIATION)
    verdict = expecting(copy, 0, expect=deviation | {"until": "8.0"})
    assert (verdict.outcome, verdict.provoked[0].conformance) == (Outcome.FAIL, Conformance.NEW_DEVIATION)
    verdict = expecting(copy, 0, expect=deviation | {"spec": deviation["qemu"], "qemu": deviation["spec"]})
    assert (verdict.outcome, verdict.provoked[0].conformance) == (Outcome.PASS, Conformance.AS_SPEC)


RECIPES = {
    "another reserved bit": ("entry: root, bit: 70, value: 1", Outcome.PASS),
    "a bit that is ignored": ("entry: context, bit: 67, value: 1", Outcome.FAIL),
    "another table's reserved bit": ("entry: context, bit: 4, value: 1", Outcome.FAIL),
    "the present bit": ("entry: root, bit: 0, value: 0", Outcome.FAIL),
    "a permission": ("entry: leaf, field: read, value: 0", Outcome.FAIL),
}


@pytest.mark.parametrize(("edit", "outcome"), RECIPES.values(), ids=RECIPES)
def test_a_changed_recipe_changes_the_verdict(host, tmp_path, edit, outcome):
    text = f"""
scenario: recipe
title: A reserved bit of the root entry
machine: {{kind: bare, iommu: {{aw_bits: 48}}}}
devices: {{rogue: {{model: edu}}}}
steps:
  - provoke: {{device: rogue, write: 64, break: {{{edit}}}}}
    expect: {{blocked: {{reason: root-entry-reserved}}}}
counter_proof: [unbroken]
"""
    assert judged(run(host, tmp_path, text)).outcome is outcome
