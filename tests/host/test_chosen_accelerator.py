"""Which accelerator machines run with: here, or on a lab host by that host's KVM."""

from __future__ import annotations

import pytest

from harness.errors import InfraError
from harness.host.accelerator import ACCELERATOR, KvmFinding, choose_accelerator

USABLE = KvmFinding(usable=True, reason="a vCPU ran")
BROKEN = KvmFinding(usable=False, reason="no vCPU runs")


def never():
    raise AssertionError("KVM was tried although nobody asked for it")


@pytest.mark.parametrize(
    ("finding", "wanted", "chosen"),
    [
        (USABLE, None, ("kvm", "a vCPU ran")),
        (USABLE, "auto", ("kvm", "a vCPU ran")),
        (BROKEN, "auto", ("tcg", "no vCPU runs")),
        (USABLE, "kvm", ("kvm", "a vCPU ran")),
    ],
)
def test_kvm_is_used_where_it_runs(monkeypatch, finding, wanted, chosen):
    monkeypatch.delenv(ACCELERATOR, raising=False)
    if wanted is not None:
        monkeypatch.setenv(ACCELERATOR, wanted)

    assert choose_accelerator(lambda: finding) == chosen


def test_what_is_asked_for_settles_it(monkeypatch):
    monkeypatch.setenv(ACCELERATOR, "tcg")
    assert choose_accelerator(never) == ("tcg", "asked for by VTD_ACCELERATOR")

    monkeypatch.setenv(ACCELERATOR, "kvm")
    assert choose_accelerator(never, "tcg")[0] == "tcg"


@pytest.mark.parametrize(("wanted", "told"), [("kvm", "no vCPU runs"), ("hvf", "set it to auto, tcg or kvm")])
def test_what_cannot_be_had_is_told(monkeypatch, wanted, told):
    monkeypatch.setenv(ACCELERATOR, wanted)

    with pytest.raises(InfraError, match=told):
        choose_accelerator(lambda: BROKEN)
