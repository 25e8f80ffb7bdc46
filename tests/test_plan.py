"""Plans: what is decided before anything runs, and what is refused at the author's own line."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from harness.equipment import HostFacts
from harness.errors import HarnessError
from harness.evidence import write_json
from harness.lone_machines import booting_lone
from harness.machine.properties import Property, QemuFacts
from harness.plan import plan_all, read_plan
from harness.source.diagnostics import InputError

OFFERED = QemuFacts(
    version="10.0.13",
    devices=frozenset({"edu", "e1000e", "virtio-net-pci", "intel-iommu"}),
    properties={
        "intel-iommu": {
            "aw-bits": Property("uint8", 48),
            "caching-mode": Property("bool", default=False),
            "intremap": Property("OnOffAuto", "auto"),
            "x-scalable-mode": Property("bool", default=False),
        }
    },
    cpus=frozenset({"max", "qemu64"}),
)


def host(*, accelerator="tcg", version="10.0.13"):
    return HostFacts(
        qemu=SimpleNamespace(version=version, digest="0"),
        facts=OFFERED,
        accelerator=accelerator,
        accelerator_reason="no /dev/kvm",
        store=None,
        templates=None,
        slots=None,
        progress=print,
    )


HEAD = "scenario: x\ntitle: X\n"
DEVICE = "devices:\n  rogue: {model: edu}\n"
STEPS = (
    "steps:\n  - assign: rogue\n  - map: {device: rogue, buffer: own, iova: 0x100000, size: 64KiB}\n"
    "  - dma: {device: rogue, write: 64, to: own}\n    expect: landed\n"
)


@pytest.fixture
def planned(tmp_path):
    def plan(text, *, cold=False, **facts):
        path = tmp_path / "x.yaml"
        path.write_text(text, encoding="utf-8")
        return plan_all([path], host(**facts), cold=cold)

    return plan


def _problems(planned, text):
    with pytest.raises(InputError) as caught:
        planned(text)
    return [(d.line, d.column, d.message, d.suggestion) for d in caught.value.diagnostics]


def test_a_plan_survives_its_file(planned, tmp_path):
    [plan] = planned(HEAD + DEVICE + STEPS)
    written = write_json(tmp_path / "plan.json", plan)

    again = write_json(tmp_path / "again.json", read_plan(written))

    assert again.read_bytes() == written.read_bytes()


def test_devices_are_put_behind_ports_in_the_order_of_the_file(planned):
    text = HEAD + (
        "devices:\n  a: {model: edu}\n  b: {model: e1000e}\n  c: {model: edu, behind: bridge}\n"
        "steps:\n  - iommu_groups: {alone: [a, b]}\n"
    )
    [plan] = planned(text)

    places = {device.name: (device.qdev["bus"], device.wire, device.behind_bridge) for device in plan.devices}
    assert places == {"a": ("rp0", None, False), "b": ("rp1", "wire-b", False), "c": ("br0", None, True)}
    assert plan.machine.pci_bridges == 1
    assert {device.name for device in plan.devices if device.plugged} == {"a", "b", "c"}


def test_a_machine_is_restored_unless_something_says_otherwise(planned):
    [plan] = planned(HEAD + DEVICE + STEPS)

    assert plan.start == "template"


@pytest.mark.parametrize(
    ("written", "facts"),
    [
        ("start: cold\n", {}),
        ("", {"cold": True}),
        ("start: template\n", {"cold": True}),
        ("", {"version": "7.2.0"}),
        ("start: template\n", {"version": "8.1.5"}),
    ],
    ids=["scenario", "option", "option-goes-first", "qemu-7.2", "qemu-8.1"],
)
def test_a_machine_is_booted_where_it_is_told_or_cannot_be_saved(planned, written, facts):
    [plan] = planned(HEAD + written + DEVICE + STEPS, **facts)

    assert (plan.start, plan.skip) == ("cold", None)


@pytest.mark.parametrize("version", ["8.2.0", "8.2.2 (Debian 1:8.2.2+ds-0ubuntu1)", "9.0.0", "11.1.3"])
def test_each_qemu_that_migrates_to_a_file_restores(planned, version):
    assert planned(HEAD + DEVICE + STEPS, version=version)[0].start == "template"


OFF = {"kernel_args": ("intel_iommu=off",)}


@pytest.mark.parametrize(
    ("variants", "prove", "booted"),
    [
        ([({}, ())], False, [True]),
        ([({}, ()), ({}, ())], False, [False, False]),
        ([({}, ()), ({"wires": ("lan",)}, ())], False, [False, False]),
        ([({}, ()), ({"memory_mib": 768}, ())], False, [True, True]),
        ([({}, ()), ({"memory_mib": 768}, ()), ({}, ())], False, [False, True, False]),
        ([({}, ("iommu_off",))], True, [True]),
        ([({}, ("iommu_off",)), (OFF, ())], False, [True, True]),
        ([({}, ("iommu_off",)), (OFF, ())], True, [False, False]),
        ([({}, ("unbroken",))], False, [True]),
        ([({}, ("unbroken",))], True, [False]),
    ],
)
def test_a_machine_is_lone_if_no_other_variant_and_no_counter_proof_has_it(planned, variants, prove, booted):
    [plan] = planned(HEAD + DEVICE + STEPS)
    plans = [
        replace(plan, machine=replace(plan.machine, **machine), counter_proofs=proofs) for machine, proofs in variants
    ]

    assert [plan.start == "cold" for plan in booting_lone(plans, prove=prove)] == booted


def test_what_does_not_run_makes_no_machine_common(planned):
    [plan] = planned(HEAD + DEVICE + STEPS)
    skipped = replace(plan, skip="needs KVM")

    assert [plan.start for plan in booting_lone([plan, skipped], prove=False)] == ["cold", "template"]


def test_a_machine_that_is_refused_has_no_template(planned):
    [plan] = planned(HEAD + "machine:\n  iommu: [{}, {}]\nrefused: multiple vIOMMUs\n")

    assert plan.start == "cold"


def test_a_matrix_may_boot_and_restore(planned):
    plans = planned(HEAD + DEVICE + STEPS + "matrix: {start: [cold, template]}\n")

    assert {plan.variant: plan.start for plan in plans} == {"start=cold": "cold", "start=template": "template"}


@pytest.mark.parametrize("start", ["cold", "template"])
def test_a_counter_proof_starts_as_its_scenario_does(planned, start):
    [plan] = planned(HEAD + f"start: {start}\n" + DEVICE + STEPS)

    assert plan.without("iommu_off").start == start


def test_a_wrong_option_of_the_viommu_is_told_at_its_line(planned):
    text = HEAD + "machine:\n  iommu: {aw_bit: 48, caching_mode: maybe}\n" + DEVICE + STEPS

    assert _problems(planned, text) == [
        (4, 11, "'aw_bit' is not an option of intel-iommu in QEMU 10.0.13", "did you mean 'aw_bits'?"),
        (4, 37, "'caching_mode' must be on or off, not 'maybe'", None),
    ]


def test_one_key_means_every_spelling_of_the_option(planned):
    [plan] = planned(HEAD + "machine:\n  iommu: {scalable_mode: on}\n" + DEVICE + STEPS)

    assert plan.skip is None


def test_an_option_that_this_qemu_has_not_skips_the_scenario(planned):
    [plan] = planned(HEAD + "machine:\n  iommu: {first_stage: on}\n" + DEVICE + STEPS)

    assert plan.skip == "QEMU 10.0.13 has no 'first_stage' on its intel-iommu"


def test_a_device_that_this_qemu_has_not_skips_the_scenario(planned):
    text = HEAD + "devices:\n  nic: {model: igb}\nsteps:\n  - traffic: {device: nic}\n"

    assert planned(text)[0].skip == "needs a QEMU with 'igb'; 10.0.13 has none"


@pytest.mark.parametrize(
    ("bound", "version", "runs"),
    [
        (">=10.0", "10.0.13", True),
        (">=10.1", "10.0.13", False),
        ("<11", "11.1.3", False),
        ("==10.0", "10.0.2", True),
        (">=9.2", "10.0.0", True),
    ],
)
def test_versions_are_compared_as_numbers(planned, bound, version, runs):
    [plan] = planned(HEAD + DEVICE + STEPS + f'requires: {{qemu: "{bound}"}}\n', version=version)

    assert (plan.skip is None) is runs


def test_kvm_is_required_with_the_reason_it_is_not_there(planned):
    [plan] = planned(HEAD + DEVICE + STEPS + "requires: {kvm: true}\n")

    assert plan.skip == "needs KVM; no /dev/kvm"


def test_a_scenario_that_cannot_fail_is_refused(planned):
    text = HEAD + DEVICE + "steps:\n  - assign: rogue\n"

    [(line, _, message, _)] = _problems(planned, text)
    assert (line, message) == (5, "no step of this scenario can fail, so it proves nothing")


ROGUE = "devices:\n  d: {model: edu}\n  nic: {model: e1000e, plugged: false}\n  virtio: {model: virtio-net}\n"
BLOCKED = "    expect: blocked\n"
READY = "steps:\n  - assign: d\n  - assign: virtio\n  - plant: {canary: victim}\n"


@pytest.mark.parametrize(
    ("step", "column", "message"),
    [
        ("- dma: {device: d, write: 8KiB, to: victim}\n" + BLOCKED, 29, "'d' (edu) moves 16 to 4096 bytes in one DMA"),
        (
            "- dma: {device: virtio, write: 64, to: victim}\n" + BLOCKED,
            19,
            "'virtio' (virtio-net) cannot be told to issue a DMA",
        ),
        (
            "- dma: {device: d, write: 64, to: victim+0xff0}\n" + BLOCKED,
            37,
            "'victim' has 4096 bytes; 64 at 0xff0 reach beyond",
        ),
        (
            "- dma: {device: nic, write: 64, to: victim}\n" + BLOCKED,
            10,
            "'nic' is not assigned to a domain by then; put an 'assign' before",
        ),
        ("- release: nic\n", 14, "'nic' is not assigned to a domain by then; put an 'assign' before"),
        ("- traffic: {device: d}\n", 14, "'d' (edu) is no NIC"),
        ("- traffic: {device: virtio}\n", 14, "'virtio' is assigned by then; put a 'release' to the kernel before"),
        (
            "- replug: {device: virtio, times: 2}\n",
            13,
            "'virtio' is there from the start; declare it with plugged: false",
        ),
    ],
)
def test_what_a_step_cannot_do_is_told_at_its_line(planned, step, column, message):
    control = "  - dma: {device: d, write: 64, to: victim}\n    expect: blocked\n"
    told = _problems(planned, HEAD + ROGUE + READY + control + "  " + step)

    assert (13, column, message) in [(line, place, text) for line, place, text, _ in told]


READ_CANARY = "plant: {canary: c}\n  - dma: {device: rogue, read: 64, from: c}\n    expect: "


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            "map: {device: rogue, buffer: b, iova: 0x10f000, size: 4KiB}",
            "overlaps 'own', mapped at 0x100000 in the same domain",
        ),
        (
            "map: {device: rogue, buffer: b, iova: 0xfedff000, size: 8KiB}",
            "0xfee00000 to 0xfeefffff is the interrupt range, never translated",
        ),
        (
            "map: {device: rogue, buffer: b, iova: 0x6ffffff000, size: 8KiB}",
            "the mapping reaches into 0x7000000000 to 0x700fffffff, where the staging pages are",
        ),
        ("map: {device: rogue, buffer: b, iova: 0x200000, size: 128MiB}", "a buffer has up to 64MiB"),
        (
            "dma: {device: rogue, write: 64, to: 0x200000}\n    expect: landed",
            "nothing was mapped at 0x200000 by then, so no bytes could tell what happened there",
        ),
        (READ_CANARY + "{blocked: {reason: pte-write}}", "a read is never refused for 'pte-write'"),
        (READ_CANARY + "blocked", "a block proves nothing without a counter-proof"),
    ],
)
def test_what_would_break_or_prove_nothing_in_the_guest_is_told_before(planned, step, message):
    told = _problems(planned, HEAD + DEVICE + STEPS + f"  - {step}\n")

    assert message in [text for _, _, text, _ in told]


KEPT = 'machine: {kernel_args: ["memmap=64K$0x10000000"]}\n'
REBOOT = "  - reboot: {device: rogue, reserved: 0x10000000}\n"
ANEW = STEPS.removeprefix("steps:\n")


def test_a_scenario_that_reboots_is_booted(planned):
    [plan] = planned(HEAD + KEPT + DEVICE + STEPS + REBOOT + ANEW)
    assert plan.start == "cold"


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (REBOOT, "'rogue' is not assigned to a domain by then"),
        (
            STEPS + REBOOT + "  - dma: {device: rogue, write: 64, to: own}\n    expect: landed\n",
            "'rogue' is not assigned",
        ),
        (
            STEPS + REBOOT + "  - assign: rogue\n  - dma: {device: rogue, write: 64, to: own}\n    expect: landed\n",
            "'own' went with the reboot; make another",
        ),
        (
            STEPS
            + REBOOT
            + "  - assign: rogue\n  - dma: {device: rogue, write: 64, to: 0x100000}\n    expect: landed\n",
            "nothing was mapped at 0x100000 by then",
        ),
    ],
)
def test_a_reboot_takes_assignments_buffers_and_mappings(planned, steps, message):
    text = HEAD + KEPT + DEVICE + (steps if steps.startswith("steps") else "steps:\n" + steps)
    assert message in str(_problems(planned, text))


def test_a_mapping_may_come_back_where_one_was_taken_away(planned):
    again = (
        "  - unmap: {device: rogue, buffer: own}\n  - map: {device: rogue, buffer: own, iova: 0x100000, size: 64KiB}\n"
    )

    assert planned(HEAD + DEVICE + STEPS + again)


def test_a_block_without_a_positive_control_is_refused(planned):
    attack = (
        "steps:\n  - assign: rogue\n  - plant: {canary: c}\n"
        "  - dma: {device: rogue, write: 64, to: c}\n    expect: blocked\n"
    )
    told = _problems(planned, HEAD + DEVICE + attack + "counter_proof: [iommu_off]\n")

    assert [(line, text) for line, _, text, _ in told] == [(8, "a block proves nothing without a positive control")]


@pytest.mark.parametrize("machine", ["  iommu: off\n", "  kernel_args: [intel_iommu=off]\n"])
def test_nothing_can_be_assigned_without_a_unit(planned, machine):
    [(line, _, text, _)] = _problems(planned, HEAD + "machine:\n" + machine + DEVICE + STEPS)

    assert (line, text) == (4, "there is no remapping unit then, so no device can be assigned to a domain")


def test_a_counter_proof_without_an_attack_is_refused(planned):
    [(line, _, message, _)] = _problems(planned, HEAD + DEVICE + STEPS + "counter_proof: [iommu_off]\n")

    assert (line, message) == (10, "no step expects a DMA to be blocked, so there is nothing to prove the opposite of")


def test_a_cpu_model_that_qemu_has_not_is_refused(planned):
    [problem] = _problems(planned, HEAD + "machine:\n  cpu: qemu46\n" + DEVICE + STEPS)

    assert problem == (4, 8, "QEMU 10.0.13 has no CPU model 'qemu46'", "did you mean 'qemu64'?")


def test_more_devices_than_root_ports_are_refused(planned):
    many = "devices:\n" + "".join(f"  d{number}: {{model: edu}}\n" for number in range(15))
    [(line, _, message, _)] = _problems(planned, HEAD + many + "steps:\n  - iommu_groups: {alone: [d0]}\n")

    assert (line, message) == (18, "a machine has 14 root ports; 'd14' finds none left")


def test_evidence_of_another_version_is_not_judged(planned, tmp_path):
    [plan] = planned(HEAD + DEVICE + STEPS)

    with pytest.raises(HarnessError, match="evidence of version 0"):
        read_plan(write_json(tmp_path / "plan.json", replace(plan, evidence=0)))


@pytest.mark.parametrize(
    ("protection", "arguments", "units"),
    [
        ("iommu_off", ("iommu.strict=1", "intel_iommu=off"), 1),
        ("passthrough", ("iommu.strict=1", "intel_iommu=on", "iommu=pt"), 1),
        ("no_viommu", ("iommu.strict=1",), 0),
        (
            "intremap_off",
            (
                "intel_iommu=on",
                "iommu=nopt",
                "iommu.strict=1",
                "intremap=off",
                "vfio_iommu_type1.allow_unsafe_interrupts=1",
            ),
            1,
        ),
    ],
)
def test_a_counter_proof_takes_one_protection_away(planned, protection, arguments, units):
    machine = "machine:\n  kernel_args: [intel_iommu=on, iommu=nopt, iommu.strict=1]\n"
    [plan] = planned(HEAD + machine + DEVICE + STEPS)

    bare = plan.without(protection)

    assert (bare.machine.kernel_args, len(bare.machine.iommus)) == (arguments, units)
    assert bare.protection_removed == protection


BARE = (
    "machine: {kind: bare, iommu: {}}\n"
    "devices:\n  d: {model: edu}\n  nic: {model: igb}\n  virtio: {model: virtio-net}\n  disk: {model: nvme}\n"
)


@pytest.mark.parametrize(
    ("provoke", "message"),
    [
        ("{device: nic, write: 64, at: 0x20000}", "'nic' (igb) can only read on a bare machine"),
        ("{device: virtio, read: 64, at: 0x20000}", "'virtio' (virtio-net) cannot be told anything on a bare machine"),
        (
            "{device: nic, read: 64, break: {entry: context, field: present, value: 0}}",
            (
                "'nic' (igb) fetches its ring through the same tables: "
                "break the leaf, or go to an address that nothing maps"
            ),
        ),
        (
            "{device: d, write: 516, at: 0x20000}",
            "'d' (edu) moves 16 to 512 bytes in one DMA on a bare machine, not 516",
        ),
        (
            "{device: nic, read: 32, at: 0x20000}",
            "'nic' (igb) moves 64 to 1400 bytes in one DMA on a bare machine, not 32",
        ),
        ("{device: disk, read: 64, at: 0x20000}", "'disk' (nvme) moves 512 bytes in one DMA on a bare machine, not 64"),
        (
            "{device: disk, read: 512, break: {entry: root, field: present, value: 0}}",
            (
                "'disk' (nvme) fetches its ring through the same tables: "
                "break the leaf, or go to an address that nothing maps"
            ),
        ),
    ],
)
def test_what_a_device_cannot_do_on_a_bare_machine_is_told(planned, provoke, message):
    text = HEAD + BARE + f"steps:\n  - provoke: {provoke}\n    expect: silent\ncounter_proof: [unbroken]\n"
    assert [(line, told) for line, _, told, _ in _problems(planned, text)] == [(10, message)]
