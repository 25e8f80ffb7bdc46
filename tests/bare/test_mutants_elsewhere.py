"""Mutants of refused interrupts, of the invalidation queue, and of the fault record."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.evidence import VariantDirectory
from harness.judge import judge_variant
from harness.verdict import Outcome
from tests.bare.mutation import Flip, bits, flipped, judged, of, put, run

pytestmark = pytest.mark.qemu

SCENARIO = """
scenario: elsewhere
title: A refused interrupt, a bad descriptor, a series of faults
machine: {kind: bare, translation: legacy, iommu: {intremap: on, aw_bits: 48}}
devices: {rogue: {model: edu}, peer: {model: edu}}
steps:
  - interrupt: {device: rogue, break: {entry: irte, field: present, value: 0}}
    expect: {blocked: {reason: ir-entry-not-present}}
  - invalidate: {descriptor: context-cache, set: {granularity: 0}}
    expect: blocked
  - recording:
      - {fault: rogue, holds: rogue, pending: true}
      - {fault: peer, holds: rogue, overflow: true, pending: true}
      - {clear: both}
counter_proof: [unbroken]
"""

INTERRUPT: dict[str, Flip] = {
    "reason": of("register", "fault", bits("high", 1 << 32)),
    "source ID": of("register", "fault", bits("high", 0x8)),
    "index": of("register", "fault", bits("low", 1 << 48)),
    "no fault": of("register", "fault", bits("high", 1 << 63)),
    "recorded reason": of("trace", "recorded", bits("reason", 1)),
    "recorded source ID": of("trace", "recorded", put("source_id", "01:01.0")),
    "announced address": of("agent", "interrupt", bits("address", 1 << 5)),
    "announced device": of("agent", "interrupt", put("bdf", "0000:09:00.0")),
    "delivered": of("observation", "pending", lambda data: data["after"].append(data["vector"])),
}
QUEUE: dict[str, Flip] = {
    "no error": of("register", "queue", bits("fsts", 0x10)),
    "head": of("register", "queue", bits("head", 0x10)),
}
RECORD: dict[str, Flip] = {
    "holds another": of("register", "fault", bits("high", 0x100)),
    "no overflow": of("register", "fault", bits("fsts", 0b1)),
    "nothing pending": of("register", "fault", bits("fectl", 1 << 30)),
}


@pytest.fixture(scope="module")
def recorded(host, tmp_path_factory) -> Path:
    path = run(host, tmp_path_factory.mktemp("elsewhere"), SCENARIO, prove=True)
    verdict = judge_variant(VariantDirectory(path))
    assert verdict.outcome is Outcome.PASS, verdict.reason
    assert verdict.counter_proofs == {"unbroken": "red"}
    return path


@pytest.fixture
def copy(recorded, tmp_path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "copy"))


@pytest.mark.parametrize("flip", INTERRUPT)
def test_an_interrupt_with_one_thing_changed_does_not_pass(copy, flip):
    assert flipped(copy, 0, "attack", INTERRUPT[flip])
    assert judged(copy).outcome in (Outcome.FAIL, Outcome.ERROR)


@pytest.mark.parametrize("flip", QUEUE)
def test_a_queue_error_with_one_thing_changed_does_not_pass(copy, flip):
    assert flipped(copy, 1, "attack", QUEUE[flip])
    assert judged(copy).outcome in (Outcome.FAIL, Outcome.ERROR)


@pytest.mark.parametrize("flip", RECORD)
def test_a_record_with_one_thing_changed_does_not_pass(copy, flip):
    assert flipped(copy, 2, "2", RECORD[flip])
    assert judged(copy).outcome in (Outcome.FAIL, Outcome.ERROR)
