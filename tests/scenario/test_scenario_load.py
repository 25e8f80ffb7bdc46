from __future__ import annotations

import json
import time
from typing import Annotated

import pytest
import scenario_words
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.scenario.device import DEVICES, Device
from harness.scenario.load import load, load_all, load_document
from harness.scenario.model import Scenario
from harness.scenario.section import Section, Shorthand
from harness.scenario.step import STEPS, Step
from harness.source.diagnostics import InputError
from harness.source.document import Document

GOOD = """\
# the comment stays in the text
scenario: unmapped-write
title: A device cannot write outside its protection domain
tags: [isolation, smoke]
machine:
  memory: 1GiB
  iommu: {intremap: on, aw_bits: 0x27, caching_mode: true}
  kernel_args: [iommu.strict=1, pci=00:02.0]
devices:
  rogue: {model: edu}
  nic: {model: e1000e, mac: 52:54:00:12:34:56, behind: bridge, plugged: false}
requires: {qemu: ">=10.0", kvm: false}
steps:
  - assign: rogue
  - map: {device: rogue, buffer: own, iova: 0x100000, size: 64KiB, access: read}
  - plant: {canary: victim, size: 4K}
  - dma: {device: rogue, read: 64, from: own}
    expect: landed
    note: the positive control
  - dma: {device: rogue, write: 64, to: victim}
    expect: {blocked: {reason: pte-write}}
  - wait: {within: 500ms, link: off}
counter_proof: [iommu_off]
"""


@pytest.fixture(autouse=True, scope="module")
def _words():
    with scenario_words.defined():
        yield


def parse(text):
    return load_document(Document.parse(text, "x.yaml"))


def complaints(text):
    with pytest.raises(InputError) as caught:
        parse(text)
    return [diagnostic.message for diagnostic in caught.value.diagnostics]


def test_a_scenario_means_what_it_says():
    (variant,) = parse(GOOD)
    scenario = variant.scenario
    assert (variant.id, variant.name, variant.scenario_id) == ("unmapped-write", "", "unmapped-write")
    assert scenario.machine.memory == 1 << 30
    assert scenario.machine.iommu == ({"intremap": "on", "aw_bits": 39, "caching_mode": True},)
    assert scenario.machine.kernel_args == ("iommu.strict=1", "pci=00:02.0")
    assert scenario.machine.image == "debian-13"
    assert scenario.devices["nic"].mac == "52:54:00:12:34:56"
    assert (scenario.devices["nic"].behind, scenario.devices["nic"].plugged) == ("bridge", False)
    assign, mapped, plant, control, attack, wait = scenario.steps
    assert [step.keyword for step in scenario.steps] == ["assign", "map", "plant", "dma", "dma", "wait"]
    assert assign.assign.device == "rogue"
    assert (mapped.map.iova, mapped.map.size, mapped.map.access) == (0x100000, 65536, "r")
    assert plant.plant.size == 4096
    assert (control.expect, control.note) == ("landed", "the positive control")
    assert attack.expect.blocked.reason == "pte-write"
    assert (wait.wait.within, wait.wait.link) == ("500ms", "off")
    assert variant.document.text == GOOD


def test_a_later_stage_can_point_at_any_value():
    (variant,) = parse(GOOD)
    span = variant.span(("machine", "iommu", 0, "aw_bits"))
    assert (span.line, span.column, span.end_column) == (7, 34, 38)
    assert variant.written(("machine", "iommu", 0, "aw_bits")) == "0x27"
    rendered = variant.diagnostic(("machine", "iommu", 0, "aw_bits"), "QEMU has no such thing", on_key=True).render()
    assert rendered.splitlines()[0] == "x.yaml:7:25: error: QEMU has no such thing"
    assert rendered.splitlines()[2].split("|")[1] == " " * 25 + "^^^^^^^"


def test_no_viommu_and_two():
    head = "scenario: a\ntitle: b\nsteps: [quiet: true]\nmachine: "
    assert parse(head + "{iommu: off}")[0].scenario.machine.iommu == ()
    assert parse(head + "{iommu: [{}, {}]}")[0].scenario.machine.iommu == ({}, {})
    assert len(parse(head + "{}")[0].scenario.machine.iommu) == 1


def test_a_machine_is_restored_unless_its_scenario_wants_a_boot():
    head = "scenario: a\ntitle: b\nsteps: [quiet: true]\n"
    assert parse(head)[0].scenario.start == "template"
    assert parse(head + "start: template\n")[0].scenario.start == "template"
    assert parse(head + "start: cold\n")[0].scenario.start == "cold"
    (complaint,) = complaints(head + "start: warm\n")
    assert complaint == "'start' must be 'template' or 'cold'; found 'warm'"


def test_a_refused_machine_has_no_steps():
    (variant,) = parse("scenario: a\ntitle: b\nrefused: two vIOMMUs\n")
    assert variant.scenario.refused.words == "two vIOMMUs"
    (variant,) = parse("scenario: a\ntitle: b\nrefused: {words: two vIOMMUs}\n")
    assert variant.scenario.refused.words == "two vIOMMUs"
    text = "scenario: a\ntitle: b\nrefused: x\nsteps: [quiet: true]\ncounter_proof: [iommu_off]\n"
    assert complaints(text) == ["a machine that is refused runs no steps"]
    assert complaints("scenario: a\ntitle: b\n") == ["the scenario needs 'steps' (or 'refused')"]
    twice = "scenario: a\ntitle: b\nsteps: [quiet: true]\ncounter_proof: [iommu_off, iommu_off]\n"
    assert complaints(twice) == ["'iommu_off' is listed twice"]


def test_data_saved_as_json_reads_back():
    (variant,) = parse(GOOD)
    saved = json.loads(json.dumps(variant.document.data()))
    assert Scenario.model_validate(saved) == variant.scenario


def test_two_files_may_not_share_an_id(tmp_path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(GOOD)
    two.write_text("\n" + GOOD)
    with pytest.raises(InputError) as caught:
        load_all([one, two])
    (found,) = caught.value.diagnostics
    assert (found.path, found.line, found.column) == (str(two), 3, 11)
    assert found.message == f"scenario 'unmapped-write' is already defined at {one}:2:11"
    two.write_text(GOOD.replace("unmapped-write", "other"))
    assert [variant.id for variant in load_all([one, two])] == ["unmapped-write", "other"]


def test_a_file_that_is_not_there_is_wrong_input(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_keyword_belongs_to_one_class():
    with pytest.raises(TypeError, match=rf"step 'quiet' is defined by scenario_words and by {__name__}"):

        class Again(Step, keyword="quiet"):
            """Another one."""

            quiet: bool


def test_a_step_has_a_field_of_its_keyword_and_a_docstring():
    with pytest.raises(TypeError, match="has no field 'empty'"):

        class Empty(Step, keyword="empty"):
            """Lacks its field."""

    with pytest.raises(TypeError, match="has no docstring"):

        class Silent(Step, keyword="silent"):
            silent: bool


def test_a_step_without_behaviour_is_no_step():
    with STEPS.emptied():

        class Idle(Step, keyword="idle"):
            """Neither runs nor judges."""

            idle: bool

        with pytest.raises(TypeError, match="abstract"):
            Idle(idle=True)


def test_a_device_model_belongs_to_one_class():
    with pytest.raises(TypeError, match="device model 'edu' is defined by"):

        class Edu(Device, model="edu"):
            """Another one."""

    assert "edu" in DEVICES


def test_a_short_form_leaves_long_ones_and_wrong_ones_alone():
    class Body(Section):
        device: str

    class Holder(Section):
        body: Annotated[Body, Shorthand("device")]

    assert Holder.model_validate({"body": "a"}) == Holder.model_validate({"body": {"device": "a"}})
    with pytest.raises(ValueError, match="Input should be a valid dictionary"):
        Holder.model_validate({"body": ["a"]})


fragments = st.sampled_from(
    [
        "scenario: a\n",
        "title: b\n",
        "steps:\n",
        "  - assign: rogue\n",
        "  - dma: {device: x, write: 1}\n",
        "devices:\n",
        "  rogue: {model: edu}\n",
        "matrix:\n",
        "  machine.image: [debian-12]\n",
        "  - {name: x, steps.quiet: 1}\n",
        "  - quiet: true\n",
        "machine: {iommu: {a: [1]}}\n",
        "  ",
        "- ",
        "&a ",
        "*a",
        "!!int ",
        "{",
        "}",
        "[",
        "]",
        ": ",
        "\t",
        "'",
        '"\\ud800"',
        '"\\U7fffffff"',
        "%YAML 99999.1\n",
        "---\n",
        "? ",
        "| ",
        "\u2028",
        "\x85",
        "\r",
        "\ufeff",
        "\x00",
        "refused: x\n",
        "requires: {kvm: 1, qemu: 2}\n",
        "expect: landed\n",
        "null",
        "0x",
        "9" * 5000,
    ]
)


def loads_or_says_why(raw):
    said = ()
    try:
        assert load_document(Document.parse(raw, "x.yaml"))
    except InputError as error:
        said = error.diagnostics
        assert said
    for found in said:
        assert found.line == 0 or min(found.line, found.column, found.length) >= 1
        assert found.render()


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(st.text(), st.lists(fragments, max_size=14).map("".join)))
def test_no_text_gets_past_the_diagnostics(text):
    loads_or_says_why(text)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_get_past_the_diagnostics(raw):
    loads_or_says_why(raw)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, len(GOOD) - 1),
    st.integers(0, 6),
    st.sampled_from(["", "x", ":", " ", "\n", "[", "}", "-", "'", "on"]),
)
def test_no_slip_of_the_pen_gets_past_the_diagnostics(at, cut, put):
    loads_or_says_why(GOOD[:at] + put + GOOD[at + cut :])


def test_a_thousand_variants_are_read_in_seconds(tmp_path):
    values = ", ".join(str(number) for number in range(1, 65))
    for number in range(16):
        text = GOOD.replace("unmapped-write", f"many-{number}") + f"matrix: {{steps.map.size: [{values}]}}\n"
        (tmp_path / f"{number:02}.yaml").write_text(text)
    began = time.monotonic()
    assert len(load_all(sorted(tmp_path.glob("*.yaml")))) == 1024
    assert time.monotonic() - began < 10


def test_time_grows_with_the_length_and_not_faster():
    def seconds(count):
        text = GOOD + "".join(f"# {number}\n" for number in range(count))
        text = text.replace("counter_proof", "  - assign: rogue\n" * count + "counter_proof")
        began = time.process_time()
        assert len(parse(text)[0].scenario.steps) == 6 + count
        return time.process_time() - began

    seconds(100)
    assert seconds(4000) < 16 * max(seconds(1000), 0.05)
