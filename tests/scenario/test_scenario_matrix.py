from __future__ import annotations

import pytest
import scenario_words

from harness.scenario.load import load_document
from harness.source.diagnostics import InputError
from harness.source.document import Document

BASE = """\
scenario: a
title: b
devices: {rogue: {model: edu}}
steps:
  - assign: {device: rogue}
  - dma: {device: rogue, write: 64}
    expect: landed
"""


@pytest.fixture(autouse=True, scope="module")
def _words():
    with scenario_words.defined():
        yield


def variants(matrix, base=BASE):
    return load_document(Document.parse(f"{base}matrix:\n{matrix}", "x.yaml"))


def complaint(matrix, base=BASE):
    with pytest.raises(InputError) as caught:
        variants(matrix, base)
    (found,) = caught.value.diagnostics
    return found


def test_axes_give_every_combination():
    found = variants("  machine.image: [debian-12, debian-13]\n  machine.iommu.aw_bits: [39, 0x30]\n")
    assert [variant.id for variant in found] == [
        "a[image=debian-12,aw_bits=39]",
        "a[image=debian-12,aw_bits=0x30]",
        "a[image=debian-13,aw_bits=39]",
        "a[image=debian-13,aw_bits=0x30]",
    ]
    machine = found[1].scenario.machine
    assert (machine.image, machine.iommu) == ("debian-12", ({"aw_bits": 48},))


def test_rows_give_one_variant_each():
    found = variants(
        "  - {name: plain}\n  - {name: 'on', machine.kernel_args: [intel_iommu=on]}\n"
        "  - {machine.kernel_args: [iommu=pt, iommu.strict=1], machine.vcpus: 2}\n  - machine.kernel_args: []\n"
    )
    assert [variant.name for variant in found] == ["plain", "on", "iommu=pt+iommu.strict=1,2", "none"]
    assert found[2].scenario.machine.kernel_args == ("iommu=pt", "iommu.strict=1")
    assert found[0].scenario.machine.vcpus == 1


def test_overrides_reach_steps_their_siblings_and_devices():
    found = variants(
        "  - {name: x, steps.dma.write: 8, steps.dma.expect: {blocked: {reason: pte-write}}, "
        "devices.rogue: {model: e1000e}, requires.kvm: true}\n  - {name: y}\n"
    )
    x, y = (variant.scenario for variant in found)
    assert x.steps[1].dma.write == 8
    assert x.steps[1].expect.blocked.reason == "pte-write"
    assert x.devices["rogue"].model == "e1000e"
    assert x.requires.kvm is True
    assert (y.steps[1].dma.write, y.steps[1].expect, y.devices["rogue"].model) == (64, "landed", "edu")


def test_a_row_may_have_tags_of_its_own():
    found = variants("  - {name: x, tags: [nightly]}\n  - {name: y}\n")
    assert [variant.scenario.tags for variant in found] == [("nightly",), ()]


def test_a_row_may_make_a_refusal_of_it():
    base = "scenario: a\ntitle: b\n"
    found = variants("  - {name: two, machine.iommu: [{}, {}], refused: multiple vIOMMUs}\n", base)
    assert found[0].scenario.refused.words == "multiple vIOMMUs"


def test_an_overridden_value_is_pointed_at_where_it_was_written():
    (variant,) = variants("  machine.iommu.aw_bits: [39]\n")
    assert (variant.span(("machine", "iommu", 0, "aw_bits")).line, variant.place.line) == (9, 9)
    assert variant.document.key_span(("machine", "iommu", "aw_bits")).column == 17


def test_equal_last_segments_are_told_apart():
    base = BASE.replace("devices: {rogue", "devices: {nic: {model: edu}, rogue")
    (variant,) = variants("  devices.rogue.model: [edu]\n  devices.nic.model: [e1000e]\n", base)
    assert variant.name == "rogue.model=edu,nic.model=e1000e"


def test_names_fit_into_a_path():
    (variant,) = variants("  - {steps.dma: {device: rogue, write: 1}, machine.kernel_args: ['a=/../b']}\n")
    assert variant.name == "device=rogue+write=1,a=-..-b"
    (variant,) = variants("  - {machine.kernel_args: [" + ", ".join(f"argument={n}" for n in range(40)) + "]}\n")
    assert len(variant.name) == 100
    (variant,) = variants("  - {machine.kernel_args: ['.hidden']}\n")
    assert variant.name == "v.hidden"


@pytest.mark.parametrize(
    ("matrix", "line", "column", "message"),
    [
        ("  machine.vcpus: 2\n", 9, 18, "'machine.vcpus' must be a list of values; found '2'"),
        ("  machine.vcpus: []\n", 9, 18, "'machine.vcpus' must be a list of values; found an empty list"),
        ("  machine.vcpus: [1, 1]\n", 9, 22, "two variants are called 'vcpus=1'; the first stands in line 9"),
        ("  []\n", 8, 1, "the matrix has no rows"),
        ("  - {}\n", 9, 5, "this row changes nothing and has no name"),
        ("  - on\n", 9, 5, "a row of the matrix is a mapping of paths to values; found 'on'"),
        ("  machine..vcpus: [1]\n", 9, 3, "'machine..vcpus' is not a dotted path"),
        ("  steps.dma.write.x: [1]\n", 9, 19, "'steps.dma.write.x' goes through '64' in line 6, which is no mapping"),
        ("  scenario: [x]\n", 9, 3, "'scenario' cannot be varied"),
    ],
)
def test_what_is_wrong_with_a_matrix(matrix, line, column, message):
    found = complaint(matrix)
    assert (found.line, found.column, found.message) == (line, column, message)


def test_a_list_is_entered_by_index():
    base = BASE + "machine: {iommu: [{aw_bits: 39}, {}]}\n"
    (variant,) = variants("  machine.iommu.1.aw_bits: [48]\n", base)
    assert variant.scenario.machine.iommu == ({"aw_bits": 39}, {"aw_bits": 48})
    assert (
        "goes into a list of 2, where '7' is no index" in complaint("  machine.iommu.7.aw_bits: [48]\n", base).message
    )


def test_one_mistake_in_the_base_is_told_once_for_all_variants():
    found = complaint("  machine.vcpus: [1, 2, 3]\n", BASE.replace("landed", "landet"))
    assert (found.line, found.message) == (7, "'expect' must be 'landed' or a mapping; found 'landet'")


def test_what_variants_share_is_checked_once_and_what_is_wrong_in_it_is_told_for_all():
    steps = "steps:\n  - assign: rogue\n  - map: {device: rogue, buffer: own, iova: 0x100000, size: 64KiB}\n"
    head = "scenario: x\ntitle: X\ndevices: {rogue: {model: edu}}\nmatrix: {steps.map.iova: [0x100000, 0x200000]}\n"
    first, second = load_document(Document.parse(head + steps, "x.yaml"))
    assert first.scenario.steps[0] is second.scenario.steps[0]
    assert [variant.scenario.steps[1].map.iova for variant in (first, second)] == [0x100000, 0x200000]
    with pytest.raises(InputError, match="'nonsense' is not a step") as caught:
        load_document(Document.parse(head + steps + "  - nonsense: 1\n", "x.yaml"))
    assert [found.line for found in caught.value.diagnostics] == [8]
