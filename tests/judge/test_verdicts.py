"""The judge on recorded evidence: the proof passes, and nothing that spoils it does."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from harness.evidence import VariantDirectory
from harness.judge import judge_variant
from harness.machine.argv import KERNEL_ARGS
from harness.verdict import CounterProof, Outcome
from tests.judge.recording import (
    ATTACK,
    BEFORE,
    CONTROL,
    OTHER,
    PAYLOAD,
    VICTIM,
    Recording,
    counter_proof,
    plan,
    proof,
)


def _at(step, source, kind=None):
    return lambda entry: entry["step"] == step and entry["source"] == source and kind in (None, entry["kind"])


def _fault_line(step):
    return lambda entry: entry["step"] == step and "Request device" in str(entry["data"].get("text"))


def _rewrite(recording, pattern, replacement, *, sources=("kmsg", "console")):
    for entry in recording.entries:
        if entry["step"] == ATTACK and entry["source"] in sources:
            entry["data"]["text"] = re.sub(pattern, replacement, entry["data"]["text"])


def _renumber(recording):
    for number, entry in enumerate(e for e in recording.entries if e["source"] == "kmsg"):
        entry["data"]["seq"] = number


def _insert_log(recording, step, text):
    """Put a line into the guest's log before the end of a step."""
    at = next(
        i for i, e in enumerate(recording.entries) if e["step"] == step and "end bb" in str(e["data"].get("text"))
    )
    recording.log(text)
    recording.entries.insert(at, {**recording.entries.pop(), "step": step})
    _renumber(recording)


def _reseeding(entry):
    return "crng reseeded" in str(entry["data"].get("text"))


def _stranger(recording, step):
    recording.add("trace", "fault", step, source_id="02:00.0", access="read", reason=6, first=0, last=0, count=1)


def test_the_proof_passes(tmp_path):
    verdict = judge_variant(proof().write(tmp_path))

    assert (verdict.outcome, verdict.reason) == (Outcome.PASS, "all 2 expectations proven")


def test_every_witness_of_the_block_is_named(tmp_path):
    verdict = judge_variant(proof().write(tmp_path))

    named = {witness.name for witness in verdict.witnesses if witness.step == ATTACK}
    assert named == {"announcement", "guest-log", "console", "host-trace", "bytes", "others"}


#: What QEMU traces as recorded for device 01:00.0 and reason 0x22.
REFUSED_INTERRUPT = "index 0 high 0x8000002200000100 low 0x5000000000000"

SPOILED = {
    "the log is silent": (lambda r: r.change(_fault_line(ATTACK), text="nothing"), Outcome.ERROR),
    "only the console shows the fault": (
        lambda r: r.change(lambda e: _fault_line(ATTACK)(e) and e["source"] == "kmsg", text="nothing"),
        Outcome.ERROR,
    ),
    "the console is silent": (lambda r: r.drop(_at(ATTACK, "console")), Outcome.ERROR),
    "the trace is silent": (lambda r: r.drop(_at(ATTACK, "trace")), Outcome.ERROR),
    "nobody reports": (
        lambda r: (
            r.drop(_at(ATTACK, "trace")),
            r.drop(_at(ATTACK, "console")),
            r.change(_fault_line(ATTACK), text="x"),
        ),
        Outcome.ERROR,
    ),
    "the DMA was not announced": (lambda r: r.drop(_at(ATTACK, "agent")), Outcome.ERROR),
    "another address was announced": (lambda r: r.change(_at(ATTACK, "agent"), address=VICTIM + 4096), Outcome.ERROR),
    "the other direction was announced": (
        lambda r: r.change(_at(ATTACK, "agent"), direction="from-memory"),
        Outcome.ERROR,
    ),
    "less was announced": (lambda r: r.change(_at(ATTACK, "agent"), length=32), Outcome.ERROR),
    "another device announced": (lambda r: r.change(_at(ATTACK, "agent"), bdf="0000:02:00.0"), Outcome.ERROR),
    "the announcement was no attack": (lambda r: r.change(_at(ATTACK, "agent"), purpose="staging"), Outcome.ERROR),
    "the payload arrived in spite of the fault": (
        lambda r: r.bytes_after(ATTACK, PAYLOAD),
        Outcome.ERROR,
    ),
    "the canary changed to something else": (
        lambda r: r.bytes_after(ATTACK, OTHER),
        Outcome.ERROR,
    ),
    "a bystander changed": (
        lambda r: r.change(_at(ATTACK, "observation"), bystanders={"own": ["aa", "bb"]}),
        Outcome.ERROR,
    ),
    "the bytes after it were not read from outside": (
        lambda r: r.change(_at(ATTACK, "observation"), after=OTHER.hex()),
        Outcome.ERROR,
    ),
    "guest memory was never read": (
        lambda r: r.drop(lambda e: e["step"] == ATTACK and e["source"] == "memory"),
        Outcome.ERROR,
    ),
    "guest memory was read elsewhere": (lambda r: r.change(_at(ATTACK, "memory"), gpa=0x1000), Outcome.ERROR),
    "it was never tried": (lambda r: r.drop(_at(ATTACK, "observation")), Outcome.ERROR),
    "the step did not finish": (lambda r: r.drop(_at(ATTACK, "runner", "step-end")), Outcome.ERROR),
    "the step never began": (lambda r: r.drop(lambda e: e["step"] == ATTACK), Outcome.ERROR),
    "the log blames another device": (lambda r: _rewrite(r, r"\[01:00.0\]", "[02:00.0]"), Outcome.FAIL),
    "the log tells another page": (lambda r: _rewrite(r, "0x7bee000", "0x7bef000"), Outcome.ERROR),
    "the log tells a read": (lambda r: _rewrite(r, "DMA Write", "DMA Read"), Outcome.ERROR),
    "the log tells another reason": (lambda r: _rewrite(r, "reason 0x05", "reason 0x06"), Outcome.ERROR),
    "the trace blames another device": (lambda r: r.change(_at(ATTACK, "trace"), source_id="02:00.0"), Outcome.FAIL),
    "the trace tells another page": (
        lambda r: r.change(_at(ATTACK, "trace"), first=VICTIM + 4096, last=VICTIM + 4096),
        Outcome.ERROR,
    ),
    "the trace strays out of the page": (lambda r: r.change(_at(ATTACK, "trace"), last=VICTIM + 4096), Outcome.ERROR),
    "the trace tells another reason": (lambda r: r.change(_at(ATTACK, "trace"), reason=2), Outcome.ERROR),
    "both agree on another reason": (
        lambda r: (r.change(_at(ATTACK, "trace"), reason=2), _rewrite(r, "reason 0x05", "reason 0x02")),
        Outcome.FAIL,
    ),
    "another device faulted too": (lambda r: _stranger(r, ATTACK), Outcome.FAIL),
    "another device faulted during the control": (lambda r: _stranger(r, CONTROL), Outcome.FAIL),
    "the control did not arrive": (
        lambda r: r.bytes_after(CONTROL, BEFORE),
        Outcome.ERROR,
    ),
    "the control was not announced": (lambda r: r.drop(_at(CONTROL, "agent")), Outcome.ERROR),
    "a record of the log is missing": (
        lambda r: r.drop(lambda e: "handling fault status" in str(e["data"].get("text"))),
        Outcome.ERROR,
    ),
    "the first record of the log is missing": (
        lambda r: r.drop(lambda e: "Linux version" in str(e["data"].get("text"))),
        Outcome.ERROR,
    ),
    "the log was overwritten": (lambda r: r.add("kmsg", "lost", ATTACK), Outcome.ERROR),
    "the harness was killed while it stopped the machine": (
        lambda r: (r.drop(_at(None, "runner", "end")), r.drop(_at(None, "process", "stop"))),
        Outcome.ERROR,
    ),
    "QEMU was gone before it was told to quit": (
        lambda r: r.change(_at(None, "process", "stop"), rung="already-gone"),
        Outcome.ERROR,
    ),
    "QEMU died while it was told to quit": (
        lambda r: r.change(_at(None, "process", "stop"), exit_status=-9),
        Outcome.ERROR,
    ),
    "the step's begin is not in the log": (lambda r: _rewrite(r, "begin aa4", "begin of another"), Outcome.ERROR),
    "the step's end is not in the log": (lambda r: _rewrite(r, "end bb4", "end of another"), Outcome.ERROR),
    "the log of the control is empty": (
        lambda r: (r.drop(lambda e: e["step"] == CONTROL and e["source"] == "kmsg"), _renumber(r)),
        Outcome.ERROR,
    ),
    "the record ends before its end": (lambda r: r.drop(_at(None, "runner", "collected")), Outcome.ERROR),
    "the trace was never on": (lambda r: r.drop(_at(None, "trace", "watching")), Outcome.ERROR),
    "a trace line could not be read": (
        lambda r: r.add("trace", "unread", CONTROL, text="vtd_dmar_fault ?"),
        Outcome.ERROR,
    ),
    "fault reports were switched off": (lambda r: r.add("trace", "disabled", CONTROL, text=""), Outcome.ERROR),
    "the guest handled a fault that nobody tells": (
        lambda r: _insert_log(r, CONTROL, "DMAR: DRHD: handling fault status reg 2"),
        Outcome.ERROR,
    ),
    "the kernel suppressed lines": (
        lambda r: _insert_log(r, CONTROL, "dmar_fault: 77 callbacks suppressed"),
        Outcome.ERROR,
    ),
    "a fault line of an unknown dialect": (
        lambda r: _insert_log(r, CONTROL, "DMAR: Request device 01:00.0 did something"),
        Outcome.ERROR,
    ),
    "an interrupt was refused": (
        lambda r: _insert_log(
            r, CONTROL, "DMAR: [INTR-REMAP] Request device [01:00.0] fault index 0x5 [fault reason 0x26] Blocked"
        ),
        Outcome.FAIL,
    ),
    "QEMU recorded a refused interrupt": (
        lambda r: r.add("trace", "recorded", CONTROL, source_id="01:00.0", reason=0x22, text=REFUSED_INTERRUPT),
        Outcome.FAIL,
    ),
    "the kernel stumbled": (
        lambda r: _insert_log(r, CONTROL, "BUG: kernel NULL pointer dereference, address: 0"),
        Outcome.ERROR,
    ),
    "log and trace mean different pages of one DMA": (
        lambda r: (
            r.change(_at(ATTACK, "agent"), length=8192),
            r.change(_at(ATTACK, "observation"), length=8192),
            r.change(_at(ATTACK, "trace"), first=VICTIM + 4096, last=VICTIM + 4096),
        ),
        Outcome.ERROR,
    ),
    "the harness broke": (lambda r: r.add("runner", "error", message="SshError: gone"), Outcome.ERROR),
    "there was a fault outside of the steps": (
        lambda r: r.add("trace", "fault", source_id="03:00.0", access="read", reason=6, first=0, last=0, count=1),
        Outcome.FAIL,
    ),
}


@pytest.mark.parametrize(("spoil", "expected"), SPOILED.values(), ids=SPOILED.keys())
def test_spoiled_evidence_never_passes(spoil, expected, tmp_path):
    recording = proof()
    spoil(recording)

    assert judge_variant(recording.write(tmp_path)).outcome is expected


def test_a_block_that_did_not_happen_is_a_failure(tmp_path):
    recording = proof()
    recording.bytes_after(ATTACK, PAYLOAD)
    recording.drop(_at(ATTACK, "trace"))
    recording.drop(_at(ATTACK, "console"))
    recording.change(_fault_line(ATTACK), text="nothing")
    recording.change(lambda e: "DRHD" in str(e["data"].get("text")), text="nothing")

    verdict = judge_variant(recording.write(tmp_path))

    assert verdict.outcome is Outcome.FAIL
    assert "not blocked: the payload stands in 'victim'" in verdict.reason


@pytest.mark.parametrize(("file", "text"), [("trace.log", ""), ("console.log", "another line\n")])
def test_raw_files_that_say_otherwise_are_an_error(file, text, tmp_path):
    directory = proof().write(tmp_path)
    directory.file(file).write_text(text, encoding="utf-8")

    verdict = judge_variant(directory)

    assert verdict.outcome is Outcome.ERROR
    assert file in verdict.reason


@pytest.mark.parametrize("instead", ["random: crng init done", "virtual machine fork"])
def test_a_restored_guest_with_the_random_numbers_of_others_is_an_error(instead, tmp_path):
    recording = proof()
    recording.change(_reseeding, text=instead)

    verdict = judge_variant(recording.write(tmp_path))

    assert verdict.outcome is Outcome.ERROR
    assert "the restored guest's log does not tell that its random numbers were renewed" in verdict.reason


def test_a_console_does_not_tell_of_a_reseeding_that_the_log_does_not_have(tmp_path):
    recording = proof()
    recording.change(_reseeding, text="nothing")
    recording.add("console", "line", number=1, text="[    0.1] random: crng reseeded due to virtual machine fork")

    assert judge_variant(recording.write(tmp_path)).outcome is Outcome.ERROR


def test_a_booted_guest_has_nobody_to_share_random_numbers_with(tmp_path):
    recording = proof()
    recording.change(_reseeding, text="nothing")
    recording.drop(_at(None, "process", "restored"))
    recording.change(_at(None, "process", "start"), argv=["qemu-system-x86_64"])

    assert judge_variant(recording.write(tmp_path)).outcome is Outcome.PASS


@pytest.mark.parametrize("told", ["", "console=ttyS0 intel_iommu=on", " ".join((*KERNEL_ARGS, "intel_iommu=off"))])
def test_a_guest_with_other_kernel_arguments_than_planned_is_an_error(told, tmp_path):
    recording = proof()
    recording.change(_at(None, "process", "ready"), hello={"cmdline": told})

    verdict = judge_variant(recording.write(tmp_path))

    assert verdict.outcome is Outcome.ERROR
    assert f"the guest's kernel has the arguments '{told}'" in verdict.reason


def test_a_guest_that_never_told_its_kernel_arguments_is_an_error(tmp_path):
    recording = proof()
    recording.drop(_at(None, "process", "ready"))

    assert judge_variant(recording.write(tmp_path)).outcome is Outcome.ERROR


def test_a_counter_proof_with_the_arguments_of_another_machine_proves_nothing(tmp_path):
    recording = counter_proof()
    recording.change(_at(None, "process", "ready"), hello={"cmdline": "intel_iommu=on"})
    proof().write(tmp_path)
    recording.write(tmp_path / "counter" / "iommu_off", protection_removed="iommu_off")

    verdict = judge_variant(VariantDirectory(tmp_path))

    assert verdict.outcome is Outcome.ERROR
    assert verdict.counter_proofs == {"iommu_off": CounterProof.NOT_RUN}


def test_an_empty_journal_is_an_error(tmp_path):
    recording = proof()
    recording.entries.clear()

    assert judge_variant(recording.write(tmp_path)).outcome is Outcome.ERROR


def test_a_machine_that_had_to_be_killed_in_the_end_spoils_nothing(tmp_path):
    recording = proof()
    recording.change(_at(None, "process", "stop"), rung="sigkill", exit_status=-9)

    assert judge_variant(recording.write(tmp_path)).outcome is Outcome.PASS


def test_a_run_that_was_cut_off_says_so_first(tmp_path):
    recording = proof()
    recording.drop(lambda entry: entry["step"] is None or entry["step"] >= ATTACK)

    verdict = judge_variant(recording.write(tmp_path))

    assert (verdict.outcome, verdict.reason) == (Outcome.ERROR, "the run was cut off: its journal has no end")


def test_a_journal_cut_off_by_a_crash_is_still_read(tmp_path):
    directory = proof().write(tmp_path)
    journal = directory.file("journal.jsonl")
    journal.write_text(journal.read_text() + '{"t": 1.0, "source": "kms', encoding="utf-8")

    assert judge_variant(directory).outcome is Outcome.PASS


class TestCounterProof:
    def test_red_when_everything_lands(self, tmp_path):
        directory = proof().write(tmp_path)
        counter_proof().write(tmp_path / "counter" / "iommu_off", protection_removed="iommu_off")

        verdict = judge_variant(directory)

        assert (verdict.outcome, verdict.counter_proofs) == (Outcome.PASS, {"iommu_off": CounterProof.RED})

    def test_vacuous_when_the_attack_is_still_harmless(self, tmp_path):
        directory = proof().write(tmp_path)
        counter = counter_proof()
        counter.bytes_after(ATTACK, BEFORE)
        counter.write(tmp_path / "counter" / "iommu_off", protection_removed="iommu_off")

        verdict = judge_variant(directory)

        assert (verdict.outcome, verdict.counter_proofs) == (Outcome.FAIL, {"iommu_off": CounterProof.VACUOUS})
        assert "vacuous" in verdict.reason

    def test_vacuous_when_nothing_in_it_must_be_blocked(self, tmp_path):
        directory = proof().write(tmp_path)
        counter = counter_proof().write(tmp_path / "counter" / "iommu_off", protection_removed="iommu_off")
        tame = json.loads(counter.file("plan.json").read_text())
        tame["definition"]["steps"][ATTACK]["expect"] = "landed"
        counter.write_json("plan.json", tame)

        assert judge_variant(directory).counter_proofs == {"iommu_off": CounterProof.VACUOUS}

    def test_unknown_when_the_control_does_not_land_either(self, tmp_path):
        directory = proof().write(tmp_path)
        counter = counter_proof()
        counter.bytes_after(CONTROL, BEFORE)
        counter.write(tmp_path / "counter" / "iommu_off", protection_removed="iommu_off")

        verdict = judge_variant(directory)

        assert (verdict.outcome, verdict.counter_proofs) == (Outcome.ERROR, {"iommu_off": CounterProof.NOT_RUN})

    @pytest.mark.parametrize("spoil", [
        lambda r: r.add("runner", "error", message="LaunchError: no QEMU"),
        lambda r: r.drop(_at(ATTACK, "runner", "step-end")),
        lambda r: r.drop(_at(ATTACK, "agent")),
        lambda r: r.drop(lambda e: e["source"] == "kmsg"),
        lambda r: r.drop(_at(None, "runner", "end")),
        lambda r: r.change(_at(None, "process", "stop"), exit_status=-9),
        lambda r: r.change(_reseeding, text="nothing"),
        lambda r: r.entries.clear(),
    ], ids=["error", "unfinished", "not-announced", "no-log", "cut-off", "qemu-died", "stale", "empty"])  # fmt: skip
    def test_unknown_when_it_did_not_get_to_its_end(self, spoil, tmp_path):
        directory = proof().write(tmp_path)
        counter = counter_proof()
        spoil(counter)
        counter.write(tmp_path / "counter" / "iommu_off", protection_removed="iommu_off")

        verdict = judge_variant(directory)

        assert (verdict.outcome, verdict.counter_proofs) == (Outcome.ERROR, {"iommu_off": CounterProof.NOT_RUN})

    def test_asked_for_but_not_there_is_an_error(self, tmp_path):
        directory = proof().write(tmp_path)
        directory.write_json("plan.json", replace(plan(), prove=True))

        verdict = judge_variant(directory)

        assert (verdict.outcome, verdict.counter_proofs) == (Outcome.ERROR, {"iommu_off": CounterProof.NOT_RUN})

    def test_not_run_says_nothing_about_the_scenario(self, tmp_path):
        verdict = judge_variant(proof().write(tmp_path))

        assert (verdict.outcome, verdict.counter_proofs) == (Outcome.PASS, {"iommu_off": CounterProof.NOT_RUN})


class TestRefusal:
    @pytest.mark.parametrize(("refused", "expected"), [
        ({"exit_status": 1, "stderr": "qemu: no such width"}, Outcome.PASS),
        ({"exit_status": 1, "stderr": "qemu: something else"}, Outcome.FAIL),
        ({"exit_status": -6, "stderr": "Assertion failed"}, Outcome.FAIL),
        ({"exit_status": -9, "stderr": ""}, Outcome.ERROR),
        ({"exit_status": None, "stderr": ""}, Outcome.ERROR),
    ], ids=["its-words", "other-words", "crashed", "killed", "silent"])  # fmt: skip
    def test_only_qemus_own_words_prove_it(self, refused, expected, tmp_path):
        recording = self.begun()
        recording.add("runner", "refused", after_s=0.1, **refused)
        recording.add("runner", "end")

        assert self.judged(recording, tmp_path).outcome is expected

    def test_a_machine_that_starts_is_a_failure(self, tmp_path):
        recording = self.begun()
        recording.add("runner", "started")
        recording.add("runner", "end")

        assert self.judged(recording, tmp_path).outcome is Outcome.FAIL

    def test_a_run_that_was_cut_off_is_an_error(self, tmp_path):
        recording = Recording()
        recording.add("process", "start", pid=7)

        assert self.judged(recording, tmp_path).outcome is Outcome.ERROR

    def begun(self):
        recording = Recording()
        recording.add("runner", "begin", id="recorded", protection_removed=None)
        recording.add("process", "start", pid=7, argv=[])
        return recording

    def judged(self, recording, tmp_path):
        directory = recording.write(tmp_path)
        directory.write_json("plan.json", replace(plan(), refused="no such width"))
        return judge_variant(directory)
