from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.host import accelerator
from harness.host.accelerator import KvmFinding, probe_kvm, run_vcpu
from harness.images.qemu_build import QemuBuild


def _fake_qemu(directory: Path, script: str) -> QemuBuild:
    path = directory / "qemu"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return QemuBuild(path, (str(path),), {}, "0", "")


@pytest.mark.qemu
def test_a_vcpu_really_runs_under_tcg(qemu_build):
    assert run_vcpu(qemu_build, "tcg", cpu="max") is None


@pytest.mark.qemu
def test_a_vcpu_that_cannot_be_made_is_told_in_qemus_words(qemu_build):
    assert "nonesuch" in str(run_vcpu(qemu_build, "tcg", cpu="nonesuch"))


@pytest.mark.qemu
def test_a_vcpu_whose_code_never_ends_is_found_out(qemu_build, monkeypatch):
    monkeypatch.setattr(accelerator, "_RESET_VECTOR", b"\xeb\xfe".ljust(16, b"\xf4"))
    monkeypatch.setenv("VTD_TIMEOUT_SCALE", "0.2")
    assert "did not run" in str(run_vcpu(qemu_build, "tcg", cpu="max"))


def test_a_qemu_that_ends_well_without_running_the_code_proves_nothing(tmp_path):
    assert run_vcpu(_fake_qemu(tmp_path, "exit 0"), "kvm", cpu="host") == "QEMU ended with status 0 without a word"


def test_without_the_device_kvm_is_not_usable(tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator, "_KVM", tmp_path / "kvm")
    qemu = _fake_qemu(tmp_path, "exit 85")
    assert probe_kvm(qemu) == KvmFinding(usable=False, reason=f"{tmp_path}/kvm is not there")


def test_a_device_that_opens_is_no_proof(tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator, "_KVM", tmp_path / "kvm")
    (tmp_path / "kvm").touch()
    broken = _fake_qemu(tmp_path, "echo 'failed to initialize kvm' >&2; exit 1")
    assert probe_kvm(broken) == KvmFinding(usable=False, reason="no vCPU runs with KVM here: failed to initialize kvm")
    assert probe_kvm(_fake_qemu(tmp_path, "exit 85")) == KvmFinding(usable=True, reason="a vCPU ran")


def test_what_was_found_is_asked_again_for_another_qemu_another_boot_or_a_damaged_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator, "_KVM", tmp_path / "kvm")
    monkeypatch.setattr(accelerator, "_BOOT_ID", tmp_path / "boot_id")
    (tmp_path / "kvm").touch()
    (tmp_path / "boot_id").write_text("first")
    memory = tmp_path / "cache" / "kvm.json"
    works = _fake_qemu(tmp_path, "exit 85")
    assert probe_kvm(works, memory).usable
    broken = _fake_qemu(tmp_path, "exit 1")
    assert probe_kvm(broken, memory).usable  # the same path and digest: believed
    assert not probe_kvm(replace(broken, digest="other"), memory).usable
    assert not probe_kvm(broken).usable
    _fake_qemu(tmp_path, "exit 85")
    assert probe_kvm(broken, memory).usable
    _fake_qemu(tmp_path, "exit 1")
    (tmp_path / "boot_id").write_text("second")
    assert not probe_kvm(broken, memory).usable
    memory.write_text("{")
    assert not probe_kvm(broken, memory).usable
