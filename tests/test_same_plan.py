"""Two variants that would do the same are told; and what is wrong in some variants names them."""

from __future__ import annotations

import pytest

from harness.plan import plan_all
from harness.source.diagnostics import InputError
from tests.test_plan import DEVICE, HEAD, STEPS, host


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


def _matrix(rows: str) -> str:
    return f"{HEAD}{DEVICE}{STEPS}matrix:\n{rows}"


@pytest.mark.parametrize(
    ("rows", "names", "difference"),
    [
        ("  machine.memory: [512MiB, 0x20000000]\n", "'memory=512MiB' and 'memory=0x20000000'",
         "machine.memory makes no difference between 512MiB and 0x20000000"),
        ("  - {name: a}\n  - {name: b}\n", "'a' and 'b'", "nothing differs"),
        ("  - {name: a}\n  - {name: b, tags: [late]}\n", "'a' and 'b'", "nothing differs"),
        ("  - {name: a}\n  - {name: b, machine.vcpus: 1}\n", "'a' and 'b'",
         "machine.vcpus makes no difference between what the scenario says and 1"),
        ("  - {name: a, machine.iommu: {intremap: on}}\n  - {name: b, machine.iommu: {intremap: true}}\n",
         "'a' and 'b'",
         "machine.iommu makes no difference between intremap=on and intremap=true"),
        ("  - {name: a, steps.map.size: 64KiB}\n  - {name: b, steps.map.size: 65536}\n", "'a' and 'b'",
         "steps.map.size makes no difference between 64KiB and 65536"),
    ],
)  # fmt: skip
def test_two_variants_with_one_plan_are_told_with_their_values(planned, rows, names, difference):
    [(line, _, message, hint)] = _problems(planned, _matrix(rows))

    assert line == 10 + rows.count("\n")
    assert message == f"variants {names} have the same plan: {difference}"
    assert hint == "leave one out, or have it differ"


@pytest.mark.parametrize(
    "rows",
    [
        "  machine.memory: [512MiB, 1GiB]\n",
        "  steps.map.iova: [0x100000, 0x200000]\n",
        "  - {name: a}\n  - {name: b, machine.iommu: {}}\n",
        "  - {name: a}\n  - {name: b, machine.iommu.aw_bits: 48}\n",
        "  - {name: a}\n  - {name: b, start: cold}\n",
        "  - {name: a}\n  - {name: b, devices.rogue.behind: bridge}\n",
        "  - {name: a}\n  - {name: b, requires.kvm: true}\n",
        "  - {name: a}\n  - {name: b, machine.kernel_args: []}\n",
    ],
)
@pytest.mark.parametrize("facts", [{}, {"version": "7.2.22"}, {"cold": True}])
def test_variants_that_differ_in_anything_are_right_on_every_host(planned, rows, facts):
    assert len(planned(_matrix(rows), **facts)) == 2


def test_a_counter_proof_that_a_variant_has_no_attack_for_names_the_variant(planned):
    attack = "  - plant: {canary: c}\n  - dma: {device: rogue, write: 64, to: c}\n    expect: blocked\n"
    some = "matrix:\n  - {name: attacks}\n  - {name: holds, steps: [{iommu_groups: {alone: [rogue]}}]}\n"

    [(line, _, message, _)] = _problems(planned, HEAD + DEVICE + STEPS + attack + "counter_proof: [iommu_off]\n" + some)

    assert line == 13
    assert message.startswith("no step expects a DMA to be blocked")
    assert message.endswith("(in variant 'holds')")


def test_what_is_wrong_in_all_variants_names_none(planned):
    text = HEAD + DEVICE + STEPS + "counter_proof: [iommu_off]\nmatrix: {machine.vcpus: [1, 2]}\n"

    [(line, _, message, _)] = _problems(planned, text)

    assert (line, "variant" in message) == (10, False)
