from __future__ import annotations

import json

import pytest

from harness.machine import properties
from harness.machine.properties import Property, QemuFacts, convert, facts, introspect, option_names, resolve
from harness.machine.spec import IommuSpec

OLD = QemuFacts(
    "10.0.2",
    frozenset({"intel-iommu", "edu", "igb"}),
    {
        "intel-iommu": {
            "intremap": Property("OnOffAuto", "auto"),
            "caching-mode": Property("bool", default=False),
            "aw-bits": Property("uint8", 48),
            "x-scalable-mode": Property("bool", default=False),
            "x-flts": Property("bool", default=False),
        }
    },
)
NEW = QemuFacts(
    "11.1.3",
    frozenset({"intel-iommu"}),
    {"intel-iommu": {"scalable-mode": Property("bool"), "fsts": Property("bool"), "svm": Property("bool")}},
)


def test_one_key_finds_the_spelling_of_each_qemu() -> None:
    options = IommuSpec({"scalable_mode": True, "first_stage": "on"})
    assert resolve(options, OLD).properties == {"x-scalable-mode": True, "x-flts": True}
    assert resolve(options, NEW).properties == {"scalable-mode": True, "fsts": True}


def test_words_and_booleans_become_what_the_property_wants() -> None:
    resolution = resolve(IommuSpec({"intremap": True, "caching_mode": "off", "aw_bits": 39}), OLD)
    assert resolution.properties == {"intremap": "on", "caching-mode": False, "aw-bits": 39}
    assert resolution.problems == ()


def test_all_problems_are_told_each_with_its_key() -> None:
    resolution = resolve(
        IommuSpec({"cachingmode": True, "aw_bits": "wide", "intremap": "maybe", "svm": True, "scalable_mode": 1}), OLD
    )
    problems = {problem.key: problem for problem in resolution.problems}
    assert set(problems) == {"cachingmode", "aw_bits", "intremap", "svm", "scalable_mode"}
    assert problems["cachingmode"].suggestion == "caching_mode"
    assert problems["aw_bits"].why == "'aw_bits' must be a number from 0 to 255, not 'wide'"
    assert problems["intremap"].why == "'intremap' must be on, off or auto, not 'maybe'"
    assert resolution.properties == {}


def test_an_option_of_other_versions_is_unsupported_not_unknown() -> None:
    (problem,) = resolve(IommuSpec({"pasid_mode": True}), NEW).problems
    assert problem.unsupported
    assert problem.suggestion is None
    assert "11.1.3" in problem.why


@pytest.mark.parametrize(
    ("value", "kind", "result"),
    [("on", "bool", True), (False, "OnOffAuto", "off"), ("auto", "OnOffAuto", "auto"), (2**32, "uint64", 2**32)],
)
def test_values_are_converted(value, kind, result) -> None:
    assert convert(value, kind) == result
    assert type(convert(value, kind)) is type(result)


@pytest.mark.parametrize(
    ("value", "kind"), [(True, "uint8"), (256, "uint8"), (-1, "uint32"), (1, "bool"), ("auto", "bool"), (1, "str")]
)
def test_wrong_values_are_refused(value, kind) -> None:
    with pytest.raises(ValueError, match="must be"):
        convert(value, kind)


def test_scenario_keys_are_listed_once_each() -> None:
    assert option_names(OLD) == ["aw_bits", "caching_mode", "first_stage", "intremap", "scalable_mode"]


@pytest.mark.qemu
def test_qemu_tells_its_own_properties(qemu_build) -> None:
    found = introspect(qemu_build)
    assert found.offers("edu")
    assert not found.offers("edu-2000")
    assert found.properties["intel-iommu"]["aw-bits"].type == "uint8"
    assert found.properties["intel-iommu"]["intremap"] == Property("OnOffAuto", "auto")
    assert "id" not in option_names(found)
    everything = {"intremap": True, "caching_mode": True, "aw_bits": 48, "scalable_mode": False, "eim": "auto"}
    assert resolve(IommuSpec(everything), found).problems == ()


@pytest.mark.qemu
def test_a_build_is_asked_once(qemu_build, tmp_path, monkeypatch) -> None:
    first = facts(qemu_build, tmp_path)

    def ask_again(_qemu):
        raise AssertionError("QEMU was asked again")

    monkeypatch.setattr(properties, "introspect", ask_again)
    assert facts(qemu_build, tmp_path) == first
    (stored,) = tmp_path.iterdir()
    stored.write_text(json.dumps({"half": "written"}))
    with pytest.raises(AssertionError, match="asked again"):
        facts(qemu_build, tmp_path)
