"""What a scenario declares or makes and no step uses is told, as a remark."""

from __future__ import annotations

from pathlib import Path

import pytest

import harness.catalog  # noqa: F401  # registers steps and devices
from harness.scenario.load import load, load_document
from harness.scenario.unused import unused
from harness.source.document import Document

SCENARIOS = Path(__file__).parents[2] / "scenarios"

HEAD = "scenario: a\ntitle: b\n"
ASSIGNED = "steps:\n  - assign: rogue\n"
REACHED = "{model: e1000e, via: nic}"
STARTED = "steps:\n  - start: bob\n"
COMPARED = "devices: {nic: {model: e1000e}}\nguests: {bob: {nics: {eth: &, second: &}}}\n".replace("&", REACHED)
COMPARED += STARTED + "  - compare: {guest: bob, nics: [eth, second]}\n"
OWN = "  - map: {device: rogue, buffer: own, iova: 0x100000, size: 64KiB}\n"
LANDS = "  - dma: {device: rogue, write: 64, to: own}\n    expect: landed\n"


def _told(text):
    remarks = unused(load_document(Document.parse(HEAD + text, "x.yaml")))
    assert all(remark.kind == "remark" for remark in remarks)
    return [(remark.line, remark.column, remark.message) for remark in remarks]


@pytest.mark.parametrize("file", sorted(SCENARIOS.glob("*.yaml")), ids=lambda file: file.name)
def test_no_shipped_scenario_has_anything_unused(file):
    assert unused(load(file)) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("devices: {rogue: {model: edu}, spare: {model: edu}}\n" + ASSIGNED, (3, 32, "device 'spare' is not used")),
        ("devices: {rogue: {model: edu}}\nguests: {bob: {}}\n" + ASSIGNED, (4, 10, "guest 'bob' is not used")),
        (
            "devices: {rogue: {model: e1000e}}\nguests: {bob: {nics: {eth: {model: e1000e, via: rogue}}}}\n" + STARTED,
            (4, 23, "nic 'eth' is not used"),
        ),
        ("devices: {rogue: {model: edu}}\n" + ASSIGNED + OWN, (6, 34, "buffer 'own' is not used")),
        ("devices: {rogue: {model: edu}}\n" + ASSIGNED + "  - plant: {canary: c}\n", (6, 21, "canary 'c' is not used")),
    ],
)
def test_each_kind_is_told_where_it_is_given(text, told):
    assert _told(text) == [told]


def _domains(first, second):
    return (
        f"devices: {{a: {{model: edu}}, b: {{model: edu}}}}\nsteps:\n  - assign: {{device: a, domain: {first}}}\n"
        f"  - assign: {{device: b, domain: {second}}}\n"
    )


@pytest.mark.parametrize(("first", "second"), [("team", "taem"), ("shared", "shard"), ("shared", "sharred")])
def test_a_domain_that_is_most_likely_another_misspelt_is_told(first, second):
    assert _told(_domains(first, second)) == [(6, 33, f"no other device is in domain '{second}'")]


@pytest.mark.parametrize(
    ("first", "second"), [("team", "team"), ("old", "new"), ("team-a", "team-b"), ("team1", "team2"), ("team", "team2")]
)
def test_domains_that_were_meant_to_differ_are_not(first, second):
    assert _told(_domains(first, second)) == []


@pytest.mark.parametrize(
    "text",
    [
        # the machine as a whole is looked at
        "devices: {spare: {model: edu}}\nsteps:\n  - boot_log: {says: [DMAR], never: []}\n",
        # a physical function, and the NIC that a guest's reaches
        "devices: {nic: {model: igb}, vf: {model: igb-vf, of: nic}}\nsteps:\n  - assign: vf\n",
        COMPARED,
        # a buffer that is used by its name, its address or a second domain
        "devices: {rogue: {model: edu}}\n" + ASSIGNED + OWN + LANDS,
        "devices: {rogue: {model: edu}}\n" + ASSIGNED + OWN + LANDS.replace("own", "0x100040"),
        "devices: {rogue: {model: edu}, peer: {model: edu}}\n" + ASSIGNED + "  - assign: peer\n" + OWN
        + OWN.replace("rogue", "peer"),
        # one whose tables are broken
        "devices: {rogue: {model: edu}}\n" + ASSIGNED + OWN
        + "  - break: {device: rogue, entry: leaf, field: write, value: 0}\n",
        # and one that the second of two variants uses
        "devices: {rogue: {model: edu}}\nmatrix:\n  - {name: one}\n  - {name: two, steps.dma.to: own}\n"
        + ASSIGNED + OWN + LANDS.replace("own", "0x900000"),
    ],
)  # fmt: skip
def test_what_is_used_in_some_way_is_not_told(text):
    assert _told(text) == []
