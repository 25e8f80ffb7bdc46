"""What a run provoked, read back from its files."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.atlas.gathered import gather
from harness.errors import HarnessError
from tests.atlas.made_up import BLOCK, KNOWN, NEW, store


def test_a_run_is_read_back(run):
    store(run, "atlas-a", provoked=(BLOCK, BLOCK))
    store(run, "atlas-b", kind="linux")
    store(run, "atlas-c", outcome="fail", provoked=())
    store(run, "atlas-d", outcome="skip", provoked=())
    store(run, "unmapped-write", tags=("smoke",))
    found = gather(run)
    assert [each.image for each in found.provocations] == ["bare", "bare", "debian-12"]
    assert found.provocations[0].what == BLOCK
    assert (found.unproven, found.skipped) == ((("atlas-c", "because"),), (("atlas-d", "because"),))
    assert found.bare_faults_per_second == pytest.approx(2 / 1.5)
    assert found.sources == {"atlas-x.yaml": b"scenario: atlas-x\n"}


def test_a_variant_that_was_cut_off_is_not_proven(run):
    store(run, "atlas-a")
    store(run, "atlas-b", outcome=None)
    assert [name for name, _ in gather(run).unproven] == ["atlas-b[]"]


@pytest.mark.parametrize(
    ("bounds", "told"),
    [
        ({}, ""),
        ({"since": "8.2"}, "since 8.2"),
        ({"until": "10.1"}, "until 10.1"),
        ({"since": "8.2", "until": ["10.0.13", "11.1"]}, "since 8.2 until 10.0.13, 11.1"),
    ],
)
def test_a_known_deviation_has_the_versions_that_its_scenario_states(run, bounds, told):
    expect = {"spec": "blocked", "qemu": "silent", "why": KNOWN.why, **bounds}
    store(run, "atlas-a", provoked=(KNOWN,), expect=expect)
    assert [each.versions for each in gather(run).provocations] == [told]


def test_versions_are_those_of_the_cause_at_hand(run):
    expect = {"spec": "blocked", "qemu": "silent", "why": "another cause", "until": "10.1"}
    store(run, "atlas-a", provoked=(KNOWN, NEW, BLOCK, replace(KNOWN, step=7)), expect=expect)
    assert {each.versions for each in gather(run).provocations} == {""}


def test_a_scenario_that_changed_between_its_variants_has_no_source(run):
    store(run, "atlas-a")
    store(run, "atlas-b", source=("atlas-x.yaml", b"scenario: atlas-y\n"))
    assert gather(run).sources == {"atlas-x.yaml": b""}


def test_a_run_without_the_atlas_is_refused(run):
    store(run, "unmapped-write", tags=("smoke",))
    with pytest.raises(HarnessError, match="no scenario tagged 'atlas'"):
        gather(run)


def test_a_damaged_verdict_is_told(run):
    store(run, "atlas-a").write_json("verdict.json", {"provoked": [{"step": 0}]})
    with pytest.raises(HarnessError, match=r"verdict\.json holds no provoked faults"):
        gather(run)
