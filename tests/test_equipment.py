"""Which accelerator a run is made with."""

from __future__ import annotations

import pytest

from harness import equipment
from harness.equipment import choose_accelerator
from harness.errors import InfraError
from harness.host.accelerator import KvmFinding


@pytest.fixture
def probed(monkeypatch):
    def answer(finding):
        monkeypatch.setattr(equipment, "probe_kvm", lambda _qemu, _memory: finding)

    return answer


USABLE = KvmFinding(usable=True, reason="a vCPU ran")
BROKEN = KvmFinding(usable=False, reason="no vCPU runs")


@pytest.mark.parametrize(
    ("finding", "wanted", "chosen"),
    [
        (USABLE, "auto", ("kvm", "a vCPU ran")),
        (BROKEN, "auto", ("tcg", "no vCPU runs")),
        (USABLE, "kvm", ("kvm", "a vCPU ran")),
        (USABLE, "tcg", ("tcg", "asked for by VTD_ACCELERATOR")),
    ],
)
def test_kvm_is_used_where_it_runs_unless_told_otherwise(probed, finding, wanted, chosen):
    probed(finding)

    assert choose_accelerator(None, wanted) == chosen


@pytest.mark.parametrize(("wanted", "told"), [("kvm", "no vCPU runs"), ("hvf", "set it to auto, tcg or kvm")])
def test_what_cannot_be_had_is_told(probed, wanted, told):
    probed(BROKEN)

    with pytest.raises(InfraError, match=told):
        choose_accelerator(None, wanted)
