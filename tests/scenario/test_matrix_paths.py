"""A path of a matrix names what is declared: whatever is misspelt in one of a shipped scenario is told at its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness.catalog  # noqa: F401  # registers steps and devices
from harness.feasibility import infeasible
from harness.machine.properties import Property, QemuFacts
from harness.scenario.declared import undeclared
from harness.scenario.load import load_document
from harness.source.diagnostics import Diagnostic, InputError
from harness.source.document import Document
from harness.source.nodes import ListNode, MappingNode

SCENARIOS = Path(__file__).parents[2] / "scenarios"

FACTS = QemuFacts(
    "10.0.13",
    frozenset(),
    {
        "intel-iommu": {
            "aw-bits": Property("uint8", 48),
            "caching-mode": Property("bool"),
            "device-iotlb": Property("bool"),
            "eim": Property("OnOffAuto"),
            "intremap": Property("OnOffAuto"),
            "x-flts": Property("bool"),
            "x-scalable-mode": Property("bool"),
        }
    },
    frozenset({"max", "qemu64"}),
)

BASE = """\
scenario: a
title: b
devices: {nic: {model: igb}, other: {model: e1000e}}
guests: {bob: {nics: {eth: {model: e1000e, via: other}}}}
steps:
  - traffic: {device: nic}
matrix:
"""


def _problems(document: Document) -> list[Diagnostic]:
    try:
        variants = load_document(document)
    except InputError as error:
        return list(error.diagnostics)
    return [problem for variant in variants for problem in infeasible(variant, FACTS)]


def _paths(document: Document) -> dict[str, tuple[int, int]]:
    """Each path of the matrix once, with the line and the column where it begins."""
    node = document.root.entries["matrix"].value
    rows = node.items if isinstance(node, ListNode) else [node]
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        assert isinstance(row, MappingNode)
        for path, entry in row.entries.items():
            if path != "name":
                found.setdefault(path, (entry.key_span.line, entry.key_span.column))
    return found


def _misspelt(word: str) -> Iterator[str]:
    yield f"{word}x"
    yield f"{word[0]}{word[0]}{word[1:]}"
    if len(word) > 2:
        yield word[:1] + word[2:]


def _shipped() -> Iterator[tuple[str, str]]:
    for file in sorted(SCENARIOS.glob("*.yaml")):
        document = Document.read(file)
        if "matrix" in document.root.entries:
            yield from ((file.name, path) for path in _paths(document))


@pytest.mark.parametrize(("name", "path"), list(_shipped()))
def test_each_misspelt_segment_of_each_shipped_path_is_told_where_it_stands(name, path):
    text = (SCENARIOS / name).read_text(encoding="utf-8")
    line, column = _paths(Document.parse(text, name))[path]
    assert not _problems(Document.parse(text, name))
    lines = text.split("\n")
    segments = path.split(".")
    for index, segment in enumerate(segments):
        for wrong in _misspelt(segment):
            whole = ".".join([*segments[:index], wrong, *segments[index + 1 :]])
            changed = [*lines]
            before = changed[line - 1]
            assert before[column - 1 :].startswith(path)
            changed[line - 1] = before[: column - 1] + whole + before[column - 1 + len(path) :]

            problems = _problems(Document.parse("\n".join(changed), name))

            place = column + len(".".join([*segments[:index], ""]))
            assert (line, place) in {(found.line, found.column) for found in problems}, whole


@pytest.mark.parametrize(
    ("path", "column", "message", "hint"),
    [
        ("devices.nc.model: [igb, e1000e]", 11, "no device is called 'nc'", "did you mean 'nic'?"),
        ("devices.fresh: [{model: edu}]", 11, "no device is called 'fresh'", "devices here: nic, other"),
        ("guests.alice.image: [debian-12]", 10, "no guest is called 'alice'", "guests here: bob"),
        ("guests.bob.nics.et.model: [e1000e]", 19, "no nic is called 'et'", "did you mean 'eth'?"),
        ("guests.bob.nic.eth.model: [e1000e]", 14, "'nic' is not a key of 'bob'", "did you mean 'nics'?"),
        ("'devices.nc.model': [igb]", 12, "no device is called 'nc'", "did you mean 'nic'?"),
        ("devices.nic.modle: [igb]", 15, "'modle' is not a key of device 'nic'", "did you mean 'model'?"),
        ("machine.root_prts.acs: [on]", 11, "'root_prts' is not a key of 'machine'", "did you mean 'root_ports'?"),
    ],
)
def test_a_path_that_names_nothing_is_told_with_what_was_meant(path, column, message, hint):
    [found] = _problems(Document.parse(f"{BASE}  {path}\n", "x.yaml"))

    assert (found.line, found.column, found.suggestion) == (8, column, hint)
    assert found.message.startswith(message)


@pytest.mark.parametrize(
    "path", ["machine.root_ports.acs: [on, off]", "machine.vcpus: [1, 2]", "requires.kvm: [true, false]",
             "devices.nic.behind: [root-port]", "guests.bob.memory: [256MiB]", "steps.traffic.frames: [3]",
             "guests.bob.nics.eth.model: [e1000e, virtio-net]", "machine.iommu.eim: [on]"]
)  # fmt: skip
def test_a_key_that_has_a_default_needs_not_be_written(path):
    assert not _problems(Document.parse(f"{BASE}  {path}\n", "x.yaml"))


def test_a_value_that_a_later_one_of_the_same_row_replaces_is_told():
    [found] = _problems(Document.parse(f"{BASE}  - {{devices.nic.model: igb, devices: {{}}}}\n", "x.yaml"))

    assert (found.line, found.column) == (8, 30)
    assert found.message == "'devices' replaces what 'devices.nic.model' gives in line 8"


NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)


@given(declared=st.sets(NAMES, max_size=4), name=NAMES, key=st.sampled_from(["devices", "guests"]))
def test_a_path_goes_through_declared_names_alone(declared, name, key):
    entries = ", ".join(f"'{each}': {{}}" for each in sorted(declared))
    root = Document.parse(f"{key}: {{{entries}}}\n", "x.yaml").root

    missing = undeclared(root, (key, name, "model"))

    assert (missing is None) == (name in declared)
    if missing is not None:
        assert (missing.index, missing.kind, set(missing.declared)) == (1, key[:-1], declared)
