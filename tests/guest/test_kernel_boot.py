"""Whether an accelerator runs a kernel is found out by booting one, here for real."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.host.accelerator import run_vcpu
from harness.images.store import GuestImage
from harness.kernel_boot import arrangement, boots, starts_here


@pytest.fixture
def trial(qemu_build, qemu_facts, tmp_path):
    """Boot an image, as it is done to see whether KVM runs it."""

    def boot(image, accelerator, cpu="max", **how):
        spec = replace(arrangement(image.name, accelerator), cpu=cpu)
        return boots(starts_here(qemu_build, qemu_facts, image), spec, image, tmp_path, **how)

    return boot


@pytest.mark.guest
def test_a_kernel_that_boots_is_told_with_its_time(trial, guest_image):
    found = trial(guest_image, "tcg", bound_s=120)

    assert found.usable
    assert found.reason.startswith(f"Linux {guest_image.kernel_release} booted in ")


@pytest.mark.qemu
def test_a_kernel_that_says_nothing_is_not_believed(trial, empty_image, tmp_path):
    image = GuestImage("empty", empty_image.kernel, empty_image.initrd, "empty", "0.0")
    found = trial(image, "tcg", bound_s=1.0)

    assert not found.usable
    assert found.reason.startswith("Linux 0.0 does not boot with TCG: the guest did not become ready")
    assert (tmp_path / "qemu.argv").exists()


@pytest.mark.qemu
def test_a_qemu_that_refuses_is_not_believed_in_its_own_words(trial, empty_image):
    image = GuestImage("empty", empty_image.kernel, empty_image.initrd, "empty", "0.0")
    found = trial(image, "tcg", cpu="nonesuch", bound_s=5.0)

    assert not found.usable
    assert "nonesuch" in found.reason


@pytest.mark.guest
def test_a_kvm_that_runs_a_vcpu_is_held_to_a_kernel(trial, image_store, qemu_build):
    """On a host whose KVM runs a vCPU of a plain model: a kernel must boot with it, or KVM is not believed."""
    problem = run_vcpu(qemu_build, "kvm", cpu="qemu64")
    if problem is not None:
        pytest.skip(f"KVM runs no vCPU here: {problem}")
    image = image_store.get("debian-13", print)
    found = trial(image, "kvm", cpu="qemu64", bound_s=10.0)

    assert found.reason.startswith(f"Linux {image.kernel_release} {'booted in' if found.usable else 'does not boot'}")
