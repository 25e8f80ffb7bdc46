"""What of a scenario can run on a lab host; what is told of the rest, before anything runs or as a reason to skip."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from harness.machine.properties import QemuFacts
from harness.plan import plan_all
from harness.source.diagnostics import InputError
from tests.nested.test_scenarios import HOST

FACTS = QemuFacts(
    version=HOST.facts.version,
    devices=HOST.facts.devices | {"vfio-pci"},
    properties=HOST.facts.properties,
    cpus=HOST.facts.cpus,
)
NIC = SimpleNamespace(address="0000:03:00.0", id="8086:10d3")
HEAD = "scenario: x\ntitle: X\n"
PLAIN = HEAD + "devices:\n  rogue: {model: edu}\nsteps:\n  - iommu_groups: {alone: [rogue]}\n"
GIVEN = HEAD + "devices:\n  nic: {model: host-nic}\nsteps:\n  - iommu_groups: {alone: [nic]}\n"


def lab(*nics):
    return SimpleNamespace(name="ssh://lab7", nics=nics, survey=SimpleNamespace(kvm=""))


@pytest.fixture
def planned(tmp_path):
    def plan(text, host=None):
        path = tmp_path / "x.yaml"
        path.write_text(text, encoding="utf-8")
        [only] = plan_all([path], replace(HOST, facts=FACTS, lab=host))
        return only

    return plan


def test_without_a_host_what_needs_one_is_skipped_with_the_way_to_give_it(planned):
    assert planned(PLAIN).skip is None
    assert "make run HOST=ssh://root@NAME NIC=ADDRESS" in planned(GIVEN).skip
    assert "make run HOST=ssh://USER@NAME" in planned(PLAIN.replace("devices", "requires: {host: lab}\ndevices")).skip


def test_a_nic_of_the_host_is_handed_to_the_machine(planned):
    plan = planned(GIVEN, lab(NIC))
    assert (plan.skip, plan.lab, plan.start) == (None, "ssh://lab7", "cold")
    [nic] = plan.devices
    assert nic.host_address == "0000:03:00.0"
    assert (nic.qdev["driver"], nic.qdev["host"], nic.wire) == ("vfio-pci", "0000:03:00.0", None)


@pytest.mark.parametrize(
    ("host", "text", "why"),
    [
        (lab(), GIVEN, "needs 1 NIC of the lab host, and 0 may be taken: NIC=ADDRESS (--nic)"),
        (lab(NIC), GIVEN.replace("host-nic", "host-nic, like: igb"), "needs a NIC 8086:10c9 (igb); 0000:03:00.0 of"),
        (
            lab(),
            HEAD + "machine: {kind: bare, translation: legacy}\ndevices:\n  rogue: {model: edu}\nsteps:\n  - provoke:"
            " {device: rogue, write: 64, break: {entry: context, field: present, value: 0}}\n"
            "    expect: {blocked: {reason: context-not-present}}\ncounter_proof: [unbroken]\n",
            "runs on this host only: on a bare machine",
        ),
        (lab(), PLAIN.replace("devices", "guests:\n  alice: {}\ndevices"), "runs on this host only: it has a platform"),
    ],
)
def test_what_the_host_cannot_run_is_skipped_with_the_reason(planned, host, text, why):
    assert planned(text, host).skip.startswith(why)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            PLAIN.replace("devices", "requires: {host: lab}\nguests:\n  alice: {}\ndevices"),
            4,
            "no lab host can run this: it has a platform of its own for its guests",
        ),
        (
            GIVEN.replace("devices:", "devices:\n  rogue: {model: edu}") + "  - assign: rogue\n"
            "  - break: {device: rogue, entry: context, field: present, value: 0}\n",
            9,
            "no lab host can run this: it changes the machine's memory from outside",
        ),
        (GIVEN + "  - traffic: {device: nic}\n", 7, "'nic' (host-nic) has no wire to the harness; 'dma' drives it"),
        (
            GIVEN.replace("devices", "machine:\n  iommu: {caching_mode: off}\ndevices"),
            6,
            "'nic' is a NIC of the host, for which the vIOMMU needs caching_mode: on",
        ),
    ],
)
def test_what_no_host_could_run_is_told_at_its_place(planned, text, line, message):
    with pytest.raises(InputError) as caught:
        planned(text)
    assert any((found.line, found.message[: len(message)]) == (line, message) for found in caught.value.diagnostics), [
        (found.line, found.message) for found in caught.value.diagnostics
    ]
