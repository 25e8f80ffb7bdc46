"""KVM is believed for a kernel that was seen to boot with it, until it fails or the host boots anew."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import kernel_boot, runner
from harness.equipment import HostFacts
from harness.errors import InfraError, LaunchError, MachineHalted, StorageError
from harness.evidence import RunDirectory
from harness.host import accelerator
from harness.host.accelerator import ACCELERATOR, KvmFinding
from harness.host.doctor import accelerator_need
from harness.host.kvm_findings import KvmFindings, is_kvms, kvm_words
from harness.host.slots import GuestSlots
from harness.images.store import GuestImage
from harness.machine.properties import QemuFacts
from harness.machine.spec import MachineSpec
from harness.plan import plan_variant
from harness.scenario.load import load
from harness.verdict import Outcome

#: What QEMU 10.0 writes where KVM cannot emulate an instruction (accel/kvm/kvm-all.c, target/i386/cpu-dump.c).
SAID = """\
2026-11-30T10:00:00.000000Z qemu-system-x86_64: warning: host doesn't support requested feature: CPUID[eax=07h]
KVM internal error. Suberror: 1
emulation failure
RAX=0000000000000000 RBX=0000000000000000
"""
YES, NO = KvmFinding(usable=True, reason="Linux x booted in 0.8 s"), KvmFinding(usable=False, reason="it died")


@dataclass
class Store:
    cache: Path

    def get(self, name, _progress):
        return GuestImage(name, Path("kernel"), Path("initrd"), digest=f"of {name}", kernel_release=f"of {name}")


@dataclass
class Trial:
    """Stands in for the boot of a kernel, which `tests/guest/test_kernel_boot.py` does for real."""

    answer: KvmFinding = YES
    booted: list[str] = field(default_factory=list)

    def __call__(self, _start, spec, image, directory, **_):
        assert directory.is_dir()
        assert spec.accelerator == "kvm"
        self.booted.append(image.name)
        return self.answer


@pytest.fixture
def trial(monkeypatch):
    made = Trial()
    monkeypatch.setattr(kernel_boot, "boots", made)
    return made


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.delenv(ACCELERATOR, raising=False)
    monkeypatch.setattr(accelerator, "_KVM", tmp_path / "kvm")
    monkeypatch.setattr(accelerator, "_BOOT_ID", tmp_path / "boot_id")
    (tmp_path / "kvm").touch()
    (tmp_path / "boot_id").write_text("first")
    told = []
    made = HostFacts(
        qemu=SimpleNamespace(version="10.0", digest="q"), facts=None, accelerator="kvm",
        accelerator_reason="a vCPU ran", store=Store(tmp_path), templates=None,
        slots=GuestSlots(tmp_path / "locks", 2, "two"), progress=told.append,
    )  # fmt: skip
    return made, told


SPEC = MachineSpec(image="debian-13", accelerator="kvm")


def test_a_kernel_that_boots_has_kvm_and_is_tried_once(host, trial):
    facts, told = host

    assert facts.accelerated(SPEC) == SPEC
    assert facts.accelerated(replace(SPEC, memory_mib=1024)).accelerator == "kvm"
    assert trial.booted == ["debian-13"]
    assert told == ["KVM: booting Linux of debian-13 to see whether it runs a kernel"]


def test_a_kernel_that_does_not_boot_has_tcg_and_that_is_said(host, trial):
    facts, told = host
    trial.answer = NO

    assert facts.accelerated(SPEC) == replace(SPEC, accelerator="tcg")
    assert told[-1] == "debian-13: TCG instead of KVM: it died"


def test_each_kernel_is_tried_for_itself(host, trial):
    facts, _ = host
    facts.accelerated(SPEC)
    trial.answer = NO

    assert facts.accelerated(replace(SPEC, image="debian-12")).accelerator == "tcg"
    assert facts.accelerated(SPEC).accelerator == "kvm"
    assert trial.booted == ["debian-13", "debian-12"]


@pytest.mark.parametrize("change", ["boot", "device", "qemu", "damage"])
def test_it_is_tried_again_where_the_question_is_another(host, trial, tmp_path, change):
    facts, _ = host
    facts.accelerated(SPEC)
    if change == "boot":
        (tmp_path / "boot_id").write_text("second")
    elif change == "device":
        (tmp_path / "kvm").unlink()
        (tmp_path / "other").touch()
        (tmp_path / "kvm").touch()
    elif change == "qemu":
        facts = replace(facts, qemu=SimpleNamespace(version="10.0", digest="other"))
    else:
        for file in (tmp_path / "checked" / "kvm").glob("*.json"):
            file.write_text("{")
    facts.accelerated(SPEC)

    assert trial.booted == ["debian-13", "debian-13"]


def test_nothing_is_tried_for_a_machine_without_kvm_or_without_a_kernel(host, trial):
    facts, _ = host
    for spec in (replace(SPEC, accelerator="tcg"), replace(SPEC, kind="bare")):
        assert facts.accelerated(spec) == spec
    assert trial.booted == []


def test_kvm_that_fails_later_is_believed_no_more_and_that_is_said(host, trial):
    facts, told = host
    facts.accelerated(SPEC)
    facts.distrust(SPEC, "KVM internal error. Suberror: 1")

    assert "machines that start from here on run with TCG" in told[-1]
    assert "Suberror: 1" in told[-1]
    assert facts.accelerated(SPEC).accelerator == "tcg"
    assert trial.booted == ["debian-13"]


def test_kvm_that_fails_a_nested_guest_is_still_believed_for_others(host, trial):
    facts, _ = host
    facts.distrust(SPEC, "it cannot nest", nests=True)

    assert facts.accelerated(SPEC, nests=True).accelerator == "tcg"
    assert facts.accelerated(SPEC).accelerator == "kvm"
    assert trial.booted == ["debian-13"]


def test_before_a_run_the_usual_kernel_decides(host, trial):
    facts, _ = host
    assert facts.settled().accelerator_reason == YES.reason
    trial.answer = NO
    facts = replace(facts, qemu=SimpleNamespace(version="11", digest="other")).settled()
    assert (facts.accelerator, facts.accelerator_reason) == ("tcg", NO.reason)


def test_who_asks_for_kvm_gets_one_error(host, trial, monkeypatch):
    facts, _ = host
    monkeypatch.setenv(ACCELERATOR, "kvm")
    trial.answer = NO

    with pytest.raises(InfraError, match="asks for KVM, but it died"):
        facts.settled()
    with pytest.raises(InfraError, match="asks for KVM, but it died"):
        facts.accelerated(SPEC)


def test_the_words_are_kvms_own_where_it_said_any():
    launch = {"argv": ["q"], "exit_status": None}
    died = LaunchError("the guest did not become ready", stderr=SAID, **launch)
    halted = MachineHalted("QEMU stands still", state="internal-error", said=SAID)
    mute = LaunchError("the guest did not become ready", stderr="", **launch)

    assert kvm_words(died) == kvm_words(halted) == "KVM internal error. Suberror: 1, emulation failure"
    assert kvm_words(mute) == "the guest did not become ready"
    assert [is_kvms(error) for error in (died, halted, mute, MachineHalted("", state="paused", said=""))] == [
        True, True, False, False,
    ]  # fmt: skip


# -- in a run


HALTED = MachineHalted("QEMU stands still: internal-error", state="internal-error", said=SAID)


@pytest.mark.parametrize(("error", "trusted"), [(HALTED, "tcg"), (InfraError("the wire is cut"), "kvm")])
@pytest.mark.usefixtures("trial")
def test_a_variant_whose_kvm_fails_is_an_error_and_the_next_one_has_tcg(host, tmp_path, monkeypatch, error, trusted):
    facts, _ = host
    text = "scenario: x\ntitle: X\nsteps:\n  - boot_log: {says: [x]}\n"
    (tmp_path / "x.yaml").write_text(text)
    plan = plan_variant(
        load(tmp_path / "x.yaml")[0], replace(facts, facts=QemuFacts("10", frozenset(), {}, frozenset()))
    )
    assert plan.machine.accelerator == "kvm"

    def broken(*_):
        raise error

    monkeypatch.setattr(runner, "_run_steps", broken)
    run = RunDirectory.create(tmp_path / "runs")
    result = runner.run_plan(plan, run.variant("x", ""), facts, prove=False, progress=lambda _: None)

    assert result.outcome is Outcome.ERROR
    assert error.message in result.reason
    assert runner.accelerated(plan, facts).machine.accelerator == trusted


# -- the doctor


@pytest.mark.parametrize(
    ("wanted", "looks", "ok", "found"),
    [
        ("auto", (NO, YES), True, "tcg, slower but sufficient (kvm: it died)"),
        ("auto", (YES, NO), True, "tcg, slower but sufficient (kvm: it died)"),
        ("auto", (NO, NO), True, "tcg, slower but sufficient (kvm: it died)"),
        ("auto", (YES, YES), True, "kvm: Linux x booted in 0.8 s"),
        ("kvm", (YES, YES), True, "kvm: Linux x booted in 0.8 s"),
        ("kvm", (YES, NO), False, "VTD_ACCELERATOR asks for KVM, but it died"),
        ("kvm", (NO, YES), False, "VTD_ACCELERATOR asks for KVM, but it died"),
        ("tcg", (YES, YES), True, "tcg, asked for by VTD_ACCELERATOR"),
        ("hvf", (YES, YES), False, "VTD_ACCELERATOR is 'hvf'"),
    ],
)
def test_the_doctor_tells_what_a_run_would_choose(monkeypatch, wanted, looks, ok, found):
    monkeypatch.setenv(ACCELERATOR, wanted)
    vcpu, kernel = looks

    need = accelerator_need(lambda: vcpu, lambda: kernel)

    assert (need.ok, need.found) == (ok, found)
    assert bool(need.remedy) is not ok


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("name", ["mkdir", "write_bytes"])
def test_a_cache_that_cannot_be_written_keeps_no_finding_and_says_where_a_boot_lacks_its_files(
    tmp_path, monkeypatch, name, number
):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    findings, question = KvmFindings(tmp_path / "kvm"), ["qemu", "kernel", "boot"]
    with monkeypatch.context() as broken:
        broken.setattr(Path, name, fail)
        findings.keep(question, YES)
        if name == "mkdir":
            with pytest.raises(StorageError, match="the boot that asks for KVM cannot be written to"):
                findings.evidence(question)
    assert findings.recalled(question) is None
    findings.keep(question, YES)
    assert findings.recalled(question) == YES
