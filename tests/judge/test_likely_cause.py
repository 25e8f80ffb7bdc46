"""What a scenario's own steps say about a DMA that did not do as expected."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import yaml

from harness.catalog import steps_of
from harness.judge import judge_variant
from harness.judgement import Judgement
from harness.likely_cause import explained, likely_cause
from harness.verdict import Finding, Outcome
from tests.judge.recording import CONTROL, failed, plan, proof

KEEPER = "- assign: {device: keeper, domain: team}\n"
OTHER = "- assign: {device: other, domain: taem}\n"
MAP = "- map: {device: DEVICE, buffer: shared, iova: 0x200000, size: 64KiB}\n"
OWN, ELSEWHERE = MAP.replace("DEVICE", "keeper"), MAP.replace("DEVICE", "other")
CONTROL_DMA = "- dma: {device: keeper, write: 64, to: shared}\n  expect: landed\n"
READ = "- dma: {device: keeper, read: 64, from: shared}\n  expect: landed\n"
BLOCKED = "- dma: {device: keeper, write: 64, to: shared}\n  expect: {blocked: {reason: pte-write}}\n"


def cause(*steps, landed=False):
    """Give what is said of the last DMA; the steps of the scenario stand from line 6 on."""
    text = "".join(steps)
    built = steps_of({
        "scenario": "x", "title": "x", "devices": {"keeper": {"model": "edu"}, "other": {"model": "edu"}},
        "steps": yaml.safe_load(text),
    })  # fmt: skip
    lines = [number for number, line in enumerate(text.splitlines(), start=6) if line.startswith("- ")]
    index = max(n for n, step in enumerate(built) if step.keyword == "dma")
    [dma] = built[index].dmas()
    return likely_cause(built, lines, index, dma, landed=landed)


REFUSED = {
    "mapped in another domain": (
        (KEEPER, OTHER, ELSEWHERE, CONTROL_DMA),
        "'shared' is mapped in 'taem', line 8; 'keeper' is in 'team', line 6",
    ),
    "mapped for another device, each in a domain of its own": (
        ("- assign: keeper\n", "- assign: other\n", ELSEWHERE, CONTROL_DMA),
        "'shared' is mapped in 'other-domain', line 8; 'keeper' is in 'keeper-domain', line 6",
    ),
    "mapped for reading": (
        (KEEPER, OWN.replace("64KiB", "64KiB, access: r"), CONTROL_DMA),
        "'shared' is mapped in 'team', line 7, with access r, not for writing",
    ),
    "mapped for writing": (
        (KEEPER, OWN.replace("64KiB", "64KiB, access: w"), READ),
        "'shared' is mapped in 'team', line 7, with access w, not for reading",
    ),
    "mapped in part": (
        (KEEPER, OWN.replace("64KiB", "4KiB"), CONTROL_DMA.replace("to: shared", "to: shared+0xff0")),
        "0x1000 bytes of 'shared' are mapped in line 7, and the DMA ends at 0x1030",
    ),
    "unmapped": (
        (KEEPER, OWN, "- unmap: {device: keeper, buffer: shared}\n", CONTROL_DMA),
        "the mapping of 'shared' in 'team', line 7, was unmapped in line 8",
    ),
    "unmapped by another device of the domain": (
        (KEEPER, OTHER.replace("taem", "team"), OWN, "- unmap: {device: other, buffer: shared}\n", CONTROL_DMA),
        "the mapping of 'shared' in 'team', line 8, was unmapped in line 9",
    ),
    "not mapped at all": (
        (KEEPER, "- plant: {canary: shared}\n", CONTROL_DMA),
        "no step maps 'shared'; 'keeper' is in 'team', line 6",
    ),
    "mapped later": (
        (KEEPER, "- plant: {canary: shared}\n", CONTROL_DMA, OWN),
        "'shared' is mapped no earlier than in line 10",
    ),
    "released and assigned anew, and the domain ended": (
        (KEEPER, OWN, "- release: keeper\n", KEEPER, CONTROL_DMA),
        "the mapping of 'shared' in 'team', line 7, ended when 'keeper' left 'team' in line 8",
    ),
    "moved to another domain, which the first outlived": (
        (KEEPER, OTHER.replace("taem", "team"), OWN, "- release: keeper\n",
         "- assign: {device: keeper, domain: new}\n", CONTROL_DMA),
        "'shared' is mapped in 'team', line 8; 'keeper' is in 'new', line 10",
    ),
    "moved to another domain, and the first ended": (
        (KEEPER, OWN, "- release: keeper\n", "- assign: {device: keeper, domain: new}\n", CONTROL_DMA),
        (
            "the mapping of 'shared' in 'team', line 7, ended when 'keeper' left 'team' in line 8; "
            "'keeper' is in 'new', line 9"
        ),
    ),
    "released": (
        (KEEPER, OWN, "- release: keeper\n", CONTROL_DMA),
        "'keeper' left 'team' in line 8, and is in no domain",
    ),
    "an address that another domain maps": (
        (KEEPER, OTHER, ELSEWHERE, CONTROL_DMA.replace("shared", "0x200000")),
        "0x200000 is mapped in 'taem', line 8; 'keeper' is in 'team', line 6",
    ),
    "unmapped and mapped again": (
        (KEEPER, OWN, "- unmap: {device: keeper, buffer: shared}\n", OWN, CONTROL_DMA), "",
    ),
    "nothing wrong with the steps": ((KEEPER, OWN, CONTROL_DMA), ""),
}  # fmt: skip


@pytest.mark.parametrize(("steps", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_why_a_dma_that_must_land_was_refused(steps, text):
    assert cause(*steps) == text


LANDED = {
    "mapped in its own domain": (
        (KEEPER, OWN, BLOCKED), "'shared' is mapped in 'team', line 7, and 'keeper' is in that, line 6",
    ),
    "mapped by another device in the same domain": (
        (KEEPER, OTHER.replace("taem", "team"), ELSEWHERE, BLOCKED),
        "'shared' is mapped in 'team', line 8, and 'keeper' is in that, line 6",
    ),
    "mapped in another domain": ((KEEPER, OTHER, ELSEWHERE, BLOCKED), ""),
    "unmapped by then": ((KEEPER, OWN, "- unmap: {device: keeper, buffer: shared}\n", BLOCKED), ""),
}  # fmt: skip


@pytest.mark.parametrize(("steps", "text"), LANDED.values(), ids=LANDED.keys())
def test_why_a_dma_that_must_be_blocked_landed(steps, text):
    assert cause(*steps, landed=True) == text


def test_a_verdict_tells_it(tmp_path):
    directory = failed().write(tmp_path)
    told = plan()
    definition = {**told.definition, "steps": [{**step} for step in told.definition["steps"]]}
    definition["steps"][1] = {"map": {**definition["steps"][1]["map"], "access": "r"}}
    directory.write_json("plan.json", {**_plain(directory), "definition": definition})

    verdict = judge_variant(directory)

    assert verdict.outcome is Outcome.FAIL
    cause = "likely cause: 'own' is mapped in 'rogue-domain', line 6, with access r, not for writing"
    assert verdict.reason.endswith(cause)
    assert any(finding.step == CONTROL and finding.text.endswith(cause) for finding in verdict.findings)


def test_what_passes_is_not_explained(tmp_path):
    verdict = judge_variant(proof().write(tmp_path))

    assert not any("likely" in finding.text for finding in verdict.findings)


@pytest.mark.parametrize(("outcome", "landed"), [
    (Outcome.ERROR, False), (Outcome.FAIL, True), (Outcome.FAIL, None), (Outcome.PASS, True),
])  # fmt: skip
def test_only_a_failure_that_is_about_where_the_bytes_went_is_explained(outcome, landed):
    steps = steps_of(plan().definition)
    places = [SimpleNamespace(line=line) for line in range(5, 5 + len(steps))]
    judgement = Judgement(findings=(Finding(outcome=outcome, text="x", step=CONTROL),), landed=landed)

    assert explained(judgement, steps, places) == judgement


def _plain(directory):
    return json.loads(directory.file("plan.json").read_text())
