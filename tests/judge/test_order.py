"""A failure stands against everything that comes after it, and against nothing that comes before or with it."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.evidence import VariantDirectory
from harness.judge import judge_variant
from harness.verdict import CounterProof, Outcome
from tests.judge.recording import (
    ATTACK,
    BEFORE,
    CONTROL,
    OTHER,
    counter_proof,
    failed,
    let_through,
    plan,
    proof,
)
from tests.judge.test_verdicts import SPOILED

REFUSED = "the write of 64 bytes to 'own' at 0x100000 by 'rogue' should have landed, but was refused"


def _at(step, source, kind=None):
    return lambda entry: entry["step"] == step and entry["source"] == source and kind in (None, entry["kind"])


def _numbered(recording):
    for number, entry in enumerate(e for e in recording.entries if e["source"] == "kmsg"):
        entry["data"]["seq"] = number


def _status_without_a_fault(recording, step):
    """Let the guest's kernel have handled a fault that its rate limit kept out of the log."""
    place = next(n for n, e in enumerate(recording.entries) if f"end bb{step}" in str(e["data"].get("text")))
    recording.log("DMAR: DRHD: handling fault status reg 2")
    recording.entries.insert(place, {**recording.entries.pop(), "step": step})
    _numbered(recording)


AFTER = {
    "a later step cannot be read": lambda r: _status_without_a_fault(r, ATTACK),
    "a later step was not announced": lambda r: r.drop(_at(ATTACK, "agent")),
    "a later step did not finish": lambda r: r.drop(_at(ATTACK, "runner", "step-end")),
    "a later step is contradictory": lambda r: r.bytes_after(ATTACK, OTHER),
    "a later step's evidence is of another form": lambda r: r.change(_at(ATTACK, "observation"), bystanders=7),
    "a later record of the log is missing": lambda r: r.drop(
        lambda e: e["step"] == ATTACK and "handling" in str(e["data"].get("text"))
    ),
    "the harness broke later": lambda r: r.add("runner", "error", message="SshError: gone"),
    "QEMU died later": lambda r: r.change(_at(None, "process", "stop"), exit_status=-9),
    "the run was cut off": lambda r: r.drop(_at(None, "runner", "end")),
    "the record ends before its end": lambda r: r.drop(_at(None, "runner", "collected")),
    "the kernel panicked later": lambda r: r.log("Kernel panic - not syncing: Fatal exception", ATTACK),
    "the machine was reset later": lambda r: r.add("qmp", "event", name="RESET"),
    "reports were switched off later": lambda r: r.add("trace", "disabled", text=""),
    "another kernel booted later": lambda r: r.add("process", "ready", hello={"cmdline": "quiet"}),
}


@pytest.mark.parametrize("spoil", AFTER.values(), ids=AFTER.keys())
def test_what_is_wrong_after_a_failure_does_not_take_it_back(spoil, tmp_path):
    recording = failed()
    spoil(recording)

    verdict = judge_variant(recording.write(tmp_path))

    assert verdict.outcome is Outcome.FAIL
    assert verdict.reason.startswith(REFUSED)


@pytest.mark.parametrize("spoil", AFTER.values(), ids=AFTER.keys())
def test_the_same_without_a_failure_is_an_error(spoil, tmp_path):
    recording = proof()
    spoil(recording)

    assert judge_variant(recording.write(tmp_path)).outcome is Outcome.ERROR


def test_a_later_step_that_cannot_be_read_is_still_told(tmp_path):
    recording = failed()
    AFTER["a later step cannot be read"](recording)

    findings = judge_variant(recording.write(tmp_path)).findings

    assert [(finding.step, finding.outcome) for finding in findings] == [
        (CONTROL, Outcome.FAIL),
        (ATTACK, Outcome.ERROR),
    ]


def test_evidence_that_cannot_be_read_is_an_error_that_names_its_place(tmp_path):
    recording = proof()
    recording.change(_at(ATTACK, "observation"), bystanders=7)

    verdict = judge_variant(recording.write(tmp_path))

    assert verdict.outcome is Outcome.ERROR
    [line] = [n for n, entry in enumerate(recording.entries, start=1) if _at(ATTACK, "observation")(entry)]
    assert f"journal.jsonl:{line} (observation dma) cannot be read: bystanders" in verdict.reason


def test_a_damaged_line_after_a_failure_does_not_take_it_back(tmp_path):
    directory = failed().write(tmp_path)
    lines = directory.file("journal.jsonl").read_text().splitlines()
    lines[-2] = "{"
    directory.file("journal.jsonl").write_text("\n".join(lines) + "\n")

    assert judge_variant(directory).outcome is Outcome.FAIL


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"t": 1}', '{"t": 1, "source": "kmsg", "kind": "line", "step": null, "data": 5}']
)
def test_a_damaged_line_before_it_leaves_nothing_known_and_is_named(damage, tmp_path):
    directory = failed().write(tmp_path)
    lines = directory.file("journal.jsonl").read_text().splitlines()
    lines[4] = damage
    directory.file("journal.jsonl").write_text("\n".join(lines) + "\n")

    verdict = judge_variant(directory)

    assert verdict.outcome is Outcome.ERROR
    assert "journal.jsonl:5" in verdict.reason


STRAY = "DMAR: [DMA Read NO_PASID] Request device [03:00.0] fault addr 0x0 [fault reason 0x06] PTE Read"

BEFORE_IT = {
    "the trace was never on": lambda r: r.drop(_at(None, "trace", "watching")),
    "the first record of the log is missing": lambda r: r.drop(lambda e: "Linux" in str(e["data"].get("text"))),
    "another kernel": lambda r: r.change(_at(None, "process", "ready"), hello={"cmdline": "quiet"}),
    "random numbers of others": lambda r: r.change(lambda e: "crng" in str(e["data"].get("text")), text="x"),
    "the machine was reset": lambda r: r.entries.insert(
        5, {"t": 4.5, "source": "qmp", "kind": "event", "step": None, "data": {"name": "RESET"}}
    ),
    "a step before it did not finish": lambda r: r.drop(_at(1, "runner", "step-end")),
    "a fault between it and its neighbour": lambda r: (
        r.entries.insert(
            next(n for n, e in enumerate(r.entries) if _at(CONTROL, "kmsg")(e)),
            {"t": 9.0, "source": "kmsg", "kind": "line", "step": CONTROL, "data": {"seq": 0, "text": STRAY}},
        ),
        _numbered(r),
    ),
    "its own step cannot be read": lambda r: _status_without_a_fault(r, CONTROL),
    "its own DMA was not announced": lambda r: r.drop(_at(CONTROL, "agent")),
    "its own trace is gone": lambda r: r.drop(_at(CONTROL, "trace")),
    "its own bytes were not read": lambda r: r.drop(_at(CONTROL, "memory")),
    "its own log is not on the console": lambda r: r.drop(_at(CONTROL, "kmsg")),
}  # fmt: skip


@pytest.mark.parametrize("spoil", BEFORE_IT.values(), ids=BEFORE_IT.keys())
def test_what_is_wrong_before_or_in_it_leaves_nothing_known(spoil, tmp_path):
    recording = failed()
    spoil(recording)

    assert judge_variant(recording.write(tmp_path)).outcome is Outcome.ERROR


def test_a_failure_after_an_unknown_step_is_an_error(tmp_path):
    recording = let_through()
    assert judge_variant(recording.write(tmp_path / "whole")).outcome is Outcome.FAIL
    recording.drop(_at(CONTROL, "agent"))

    assert judge_variant(recording.write(tmp_path / "spoiled")).outcome is Outcome.ERROR


@pytest.mark.parametrize(("told_by", "outcome"), [
    (("trace", "kmsg", "console"), Outcome.FAIL), (("trace",), Outcome.ERROR), (("kmsg", "console"), Outcome.ERROR),
    (("trace", "kmsg"), Outcome.ERROR),
])  # fmt: skip
def test_a_failure_stands_where_its_witnesses_agree(told_by, outcome, tmp_path):
    """Somebody else faulted while the control landed; nobody says how the run ended."""
    recording = proof()
    for source in told_by:
        _stray(recording, source, CONTROL)
    assert judge_variant(recording.write(tmp_path / "whole")).outcome is Outcome.FAIL
    recording.drop(_at(None, "runner", "end"))

    assert judge_variant(recording.write(tmp_path / "cut")).outcome is outcome


def test_raw_files_that_say_otherwise_of_what_came_before_are_an_error(tmp_path):
    directory = failed().write(tmp_path)
    lines = directory.file("trace.log").read_text().splitlines(keepends=True)
    directory.file("trace.log").write_text("".join(lines[1:]))

    assert judge_variant(directory).outcome is Outcome.ERROR


def test_raw_files_that_end_early_say_nothing_of_what_came_before(tmp_path):
    directory = failed().write(tmp_path)
    lines = directory.file("trace.log").read_text().splitlines(keepends=True)
    directory.file("trace.log").write_text("".join(lines[:-1]))

    assert judge_variant(directory).outcome is Outcome.FAIL


def _stray(recording, source, step=None):
    """Let another device have faulted: in a step, or between the last two."""
    within = (lambda e: f"end bb{step}" in str(e["data"].get("text"))) if step else _at(ATTACK, "runner", "step-begin")
    place = next(n for n, e in enumerate(recording.entries) if within(e))
    fault = {"source_id": "03:00.0", "access": "read", "reason": 6, "first": 0, "last": 0, "count": 1}
    line = {"seq": 0, "priority": 3, "us": 0, "text": STRAY}
    shown = {"number": 1, "text": f"[    5.0] {STRAY}"}
    kind, data = {"trace": ("fault", fault), "kmsg": ("line", line), "console": ("line", shown)}[source]
    t = recording.entries[place]["t"] - 0.5
    recording.entries.insert(place, {"t": t, "source": source, "kind": kind, "step": step, "data": data})
    _numbered(recording)


@pytest.mark.parametrize(("told_by", "outcome"), [
    (("trace", "kmsg"), Outcome.FAIL), (("trace",), Outcome.ERROR), (("kmsg",), Outcome.ERROR),
])  # fmt: skip
def test_a_fault_between_steps_stands_where_log_and_trace_agree(told_by, outcome, tmp_path):
    recording = proof()
    for source in told_by:
        _stray(recording, source)
    recording.drop(_at(None, "runner", "end"))

    verdict = judge_variant(recording.write(tmp_path))

    assert verdict.outcome is outcome
    assert outcome is Outcome.ERROR or "outside of any step" in verdict.reason


def _unknown():
    recording = proof()
    recording.drop(_at(ATTACK, "agent"))
    return recording


def test_a_dma_that_did_not_land_is_not_refused_by_the_fault_of_another_device(tmp_path):
    """Nothing tells why it did not land, so it is not known."""
    recording = let_through()
    recording.bytes_after(CONTROL, BEFORE)
    for source in ("trace", "kmsg", "console"):
        _stray(recording, source, CONTROL)

    verdict = judge_variant(recording.write(tmp_path))

    assert verdict.outcome is Outcome.ERROR
    assert "no fault of its tells why" in verdict.reason


def test_a_refused_interrupt_between_steps_is_a_failure(tmp_path):
    recording = proof()
    text = "DMAR: [INTR-REMAP] Request device [01:00.0] fault index 0x5 [fault reason 0x26] Blocked"
    place = next(n for n, e in enumerate(recording.entries) if _at(ATTACK, "runner", "step-begin")(e))
    line = {"seq": 0, "priority": 3, "us": 0, "text": text}
    recording.entries.insert(place, {"t": 9.0, "source": "kmsg", "kind": "line", "step": None, "data": line})
    _numbered(recording)

    assert judge_variant(recording.write(tmp_path)).outcome is Outcome.FAIL


class TestCounterProofs:
    def test_one_without_another_protection_proves_nothing(self, tmp_path):
        directory = proof().write(tmp_path)
        counter = counter_proof()
        counter.change(_at(None, "runner", "begin"), protection_removed="passthrough")
        counter.write(tmp_path / "counter" / "iommu_off", protection_removed="passthrough")

        verdict = judge_variant(directory)

        assert (verdict.outcome, verdict.counter_proofs) == (Outcome.ERROR, {"iommu_off": CounterProof.NOT_RUN})

    @pytest.mark.parametrize("spoil", [
        lambda r: r.add("runner", "error", message="LaunchError: no QEMU"),
        lambda r: r.drop(_at(ATTACK, "agent")),
        lambda r: r.entries.clear(),
        lambda r: r.change(_at(ATTACK, "observation"), bystanders=7),
    ], ids=["error", "not-announced", "empty", "damaged"])  # fmt: skip
    def test_none_takes_back_the_variants_own_failure(self, spoil, tmp_path):
        counter = counter_proof()
        spoil(counter)
        directory = failed().write(tmp_path)
        counter.write(tmp_path / "counter" / "iommu_off", protection_removed="iommu_off")

        verdict = judge_variant(directory)

        assert (verdict.outcome, verdict.counter_proofs) == (Outcome.FAIL, {"iommu_off": CounterProof.NOT_RUN})
        assert verdict.reason.startswith(REFUSED)

    @pytest.mark.parametrize("name", ["plan.json", "journal.jsonl"])
    def test_one_that_cannot_be_read_says_nothing(self, name, tmp_path):
        directory = proof().write(tmp_path)
        counter = counter_proof().write(tmp_path / "counter" / "iommu_off", protection_removed="iommu_off")
        counter.file(name).write_text("{\n{\n")

        verdict = judge_variant(directory)

        assert (verdict.outcome, verdict.counter_proofs) == (Outcome.ERROR, {"iommu_off": CounterProof.NOT_RUN})

    @pytest.mark.parametrize(("own", "outcome"), [(proof, Outcome.FAIL), (_unknown, Outcome.ERROR)])
    def test_a_vacuous_one_stands_against_one_of_which_nothing_is_known(self, own, outcome, tmp_path):
        directory = own().write(tmp_path)
        directory.write_json("plan.json", replace(plan(), counter_proofs=("iommu_off", "passthrough"), prove=True))
        counter = counter_proof()
        counter.bytes_after(ATTACK, BEFORE)
        counter.write(tmp_path / "counter" / "iommu_off", protection_removed="iommu_off")

        assert judge_variant(directory).outcome is outcome


# -- by chance ---------------------------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def _key(data):
    return st.sampled_from(sorted(data)) if data else st.just("key")


def _is_entry(value):
    return isinstance(value, dict) and isinstance(value.get("data"), dict)


@st.composite
def _changed(draw, entries, others, first=0):
    """Change `entries` from the `first` on: some go, some have other fields, some of `others` come in anywhere."""
    kept, rest = copy.deepcopy(entries[:first]), copy.deepcopy(entries[first:])
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, max(0, len(rest) - 1)))
        match draw(st.sampled_from(("drop", "field", "unfield", "step", "put", "cut", "swap", "junk"))):
            case "drop":
                del rest[place : place + draw(st.integers(1, 4))]
            case "field" if rest and _is_entry(rest[place]):
                rest[place]["data"][draw(_key(rest[place]["data"]))] = draw(_JSON)
            case "unfield" if rest and _is_entry(rest[place]):
                rest[place]["data"].pop(draw(_key(rest[place]["data"])), None)
            case "step" if rest and _is_entry(rest[place]):
                rest[place]["step"] = draw(st.none() | st.integers(0, 5))
            case "put":
                rest.insert(place, copy.deepcopy(draw(st.sampled_from(others))))
            case "cut":
                del rest[place:]
            case "swap" if rest:
                rest.insert(place, rest.pop(draw(st.integers(0, len(rest) - 1))))
            case "junk":
                rest.insert(place, draw(st.text(max_size=10) | _JSON))
    return kept + rest


def _written(directory, entries):
    lines = [json.dumps(entry) if isinstance(entry, dict) else str(entry).replace("\n", " ") for entry in entries]
    directory.file("journal.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _end_of(recording, step):
    return next(n for n, e in enumerate(recording.entries) if _at(step, "runner", "step-end")(e)) + 1


@pytest.mark.parametrize(("recorded", "step"), [(failed, CONTROL), (let_through, ATTACK)], ids=["refused", "landed"])
@settings(max_examples=150)
@given(data=st.data())
def test_no_change_after_a_failed_step_makes_it_anything_else(recorded, step, data, tmp_path_factory):
    directory = _fresh(tmp_path_factory)
    recording = recorded()
    recording.write(directory.path)
    others = [*recording.entries, *proof().entries, *counter_proof().entries]
    end = _end_of(recording, step)
    _written(directory, data.draw(_changed(recording.entries, others, first=end)))
    trace = directory.file("trace.log").read_text().splitlines(keepends=True)
    until = sum(float(line.split("@")[1].split(":")[0]) <= recording.entries[end - 1]["t"] for line in trace)
    kept = data.draw(st.integers(until, len(trace)))
    directory.file("trace.log").write_text("".join(trace[:kept]) + data.draw(st.text(max_size=10)))
    if data.draw(st.booleans()):
        counter = counter_proof().write(directory.path / "counter" / "iommu_off", protection_removed="iommu_off")
        _written(counter, data.draw(_changed(counter_proof().entries, others)))

    verdict = judge_variant(directory)

    assert verdict.outcome is Outcome.FAIL
    assert any(finding.outcome is Outcome.FAIL and finding.step == step for finding in verdict.findings)


@settings(max_examples=150)
@given(data=st.data())
def test_no_change_to_a_record_ends_in_anything_but_a_verdict(data, tmp_path_factory):
    directory = _fresh(tmp_path_factory)
    recording = data.draw(st.sampled_from((proof, failed, let_through)))()
    recording.write(directory.path)
    _written(directory, data.draw(_changed(recording.entries, recording.entries)))

    assert judge_variant(directory).outcome in (Outcome.PASS, Outcome.FAIL, Outcome.ERROR)


def _fresh(tmp_path_factory):
    return VariantDirectory(tmp_path_factory.mktemp("recorded"))


#: One entry alone tells of these, in a record that is whole otherwise.
TOLD_ONCE = {"the log was overwritten", "the harness broke"}


@pytest.mark.parametrize("name", [*sorted(set(SPOILED) - TOLD_ONCE), "refused", "landed"])
def test_no_entry_that_goes_missing_makes_a_proof_of_what_was_none(name, tmp_path):
    recording = {"refused": failed, "landed": let_through}.get(name, proof)()
    if name in SPOILED:
        SPOILED[name][0](recording)
    directory = recording.write(tmp_path)

    for place, entry in enumerate(recording.entries):
        _written(directory, recording.entries[:place] + recording.entries[place + 1 :])
        assert judge_variant(directory).outcome is not Outcome.PASS, entry
