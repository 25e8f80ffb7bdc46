"""The fault atlas: put together from verdicts, written as page, JSON and HTML, and what makes it incomplete."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from harness.atlas.chart import Cause, causes, chart
from harness.atlas.gathered import gather
from harness.atlas.page import PAGE, as_written, fingerprint, fingerprint_of, page
from harness.atlas.raisable import RAISABLE, TABLES, UNRAISABLE
from harness.atlas.write import write_atlas
from harness.cli.atlas import atlas_files
from harness.images.lock import read_lock
from harness.images.recipe import RECIPES
from harness.verdict import Provoked
from harness.vtd.faults import REASON_BY_CODE, REASONS
from tests.atlas.made_up import BLOCK, KNOWN, NEW, everything, gathered, store

LINE = (
    "[    3.201] DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x{at} [fault reason 0x02] Present bit"
)


def test_every_reason_is_raisable_or_has_a_cause_why_not():
    assert {reason.code for reason in RAISABLE} | set(UNRAISABLE) == set(REASON_BY_CODE)
    assert not {reason.code for reason in RAISABLE} & set(UNRAISABLE)
    assert len(RAISABLE) == 33
    assert set(TABLES) == {reason.code for reason in RAISABLE}


def test_alike_provocations_become_one_row():
    other = replace(BLOCK, levels=3, source="edu 21:00.0", witnesses=("announcement", "trace", "register"))
    made = chart(gathered(BLOCK, other, replace(BLOCK, access="read")))
    code = next(code for code in made.codes if code.reason.name == "context-not-present")
    assert [(recipe.access, recipe.count) for recipe in code.recipes] == [("read", 1), ("write", 2)]
    row = code.recipes[1]
    assert row.where == ("legacy of 3 levels", "legacy of 4 levels")
    assert row.sources == ("edu 01:00.0", "edu 21:00.0")
    assert row.witnesses == ("announcement", "register", "trace")


def test_a_guest_and_a_bare_machine_have_rows_of_their_own():
    """The witnesses of one are not those of the other."""
    guest = replace(BLOCK, witnesses=("announcement", "guest-log"))
    made = chart(gathered(BLOCK, guest, images=("bare", "debian-12")))
    rows = next(code for code in made.codes if code.reason.name == "context-not-present").recipes
    assert [row.witnesses for row in rows] == [BLOCK.witnesses, guest.witnesses]
    assert [row.where for row in rows] == [("legacy of 4 levels",), ("legacy of 4 levels under debian-12",)]


def test_an_atlas_is_complete_when_every_raisable_reason_was_provoked():
    whole = chart(gathered(*everything()))
    assert whole.complete
    assert (whole.as_json()["raisable"], whole.as_json()["provoked"]) == (33, 33)
    partly = chart(gathered(*(each for each in everything() if each.seen != "root-not-present")))
    assert not partly.complete
    assert partly.as_json()["provoked"] == 32
    assert "- not provoked: 0x01 root-not-present\n" in page(partly)


def test_a_reason_must_be_provoked_in_each_mode_it_exists_in():
    left_out = ("paging-entry-reserved", "second-stage")
    made = chart(gathered(*(each for each in everything() if (each.seen, each.table) != left_out)))
    assert not made.complete
    assert made.as_json()["provoked"] == 33
    assert made.as_json()["codes"]["0x0c"]["missing_in"] == ["second-stage"]
    assert "- not provoked: 0x0c paging-entry-reserved with second-stage tables\n" in page(made)


@pytest.mark.parametrize(("changes", "new"), [({"unproven": (("atlas-y", "no trace"),)}, BLOCK), ({}, NEW)])
def test_what_was_not_proven_or_deviates_anew_leaves_it_incomplete(changes, new):
    made = chart(gathered(*everything(), new, **changes))
    assert not made.complete
    told = "- not proven: atlas-y: no trace" if changes else "1 NEW DEVIATION"
    assert told in page(made)


def test_the_page_is_the_same_for_two_runs_of_the_same_scenarios():
    lines = [replace(BLOCK, kernel_line=LINE.format(at=at)) for at in ("1000", "fe000")]
    first, second = (page(chart(gathered(line, images=("debian-13",)))) for line in lines)
    assert first == second
    assert "debian-13: DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x.." in first


def test_a_known_deviation_is_told_with_its_cause_and_its_versions():
    made = chart(gathered(KNOWN, KNOWN, versions="until 10.1"))
    cause = Cause("codes of legacy mode", "sm-context-not-present", "context-not-present", "until 10.1", 2)
    assert causes(made.deviations) == (cause,)
    assert f"| {cause.why} | {cause.spec} | {cause.seen} | until 10.1 | 2 |" in page(made)
    assert "| 2 | 2 known deviation |" in page(made)
    assert [each.versions for each in causes(chart(gathered(KNOWN, NEW)).deviations)] == ["not known", "all"]


def test_a_silent_refusal_stands_among_those_without_a_reason():
    made = chart(gathered(replace(BLOCK, spec="", seen="", fault_processing_disabled=True)))
    assert [recipe.seen for recipe in made.others] == [""]
    assert "### Without a reason" in page(made)


def test_the_files_of_the_atlas_are_written(run):
    store(run, "atlas-a", provoked=(BLOCK, KNOWN))
    write_atlas(run, chart(gather(run)))
    written = json.loads((run.path / "atlas.json").read_text())
    assert (written["schema"], written["qemu"], written["variants"], written["as_spec"]) == (1, "10.0.13", 2, 1)
    section = Path("docs/results.md").read_text().partition("\n## atlas.json")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert set(written) == set(re.findall(r"`(\w+)`", " ".join(rows)))
    for code in written["codes"].values():
        assert set(code) <= set(re.findall(r"`(\w+)`", section))
        assert all(set(recipe) <= set(re.findall(r"\w+", section)) for recipe in code["recipes"])
    assert written["codes"]["0x02"]["provoked"] == 2
    assert written["codes"]["0x0d"]["why_not"]
    html = (run.path / "atlas.html").read_text()
    assert "1 of 33 raisable reasons provoked on QEMU 10.0.13" in html
    assert html.count('href="#c') == len(REASONS)
    assert f"<tr><td>{KNOWN.why}</td><td>{KNOWN.spec}</td><td>{KNOWN.seen}</td><td>all</td><td>1</td></tr>" in html
    assert (run.path / "atlas.md").read_text().startswith("# Fault atlas of QEMU 10.0.13")


def test_each_key_of_a_provoked_fault_is_explained():
    section = Path("docs/results.md").read_text().partition("\n## `provoked`")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == {field.name for field in fields(Provoked)}


def test_the_committed_page_was_made_from_these_scenarios():
    text = PAGE.read_text(encoding="utf-8")
    assert fingerprint_of(text) == fingerprint(atlas_files()), "`make atlas WRITE=1` writes the page anew"
    assert as_written(text), "edited by hand: `make atlas WRITE=1` writes the page anew"
    assert "33 of 33 raisable reasons provoked" in text
    assert "0 NEW DEVIATION" in text
    assert "- not p" not in text
    (pinned,) = (package for package in read_lock(RECIPES / "qemu.lock") or () if package.name == "qemu-system-x86")
    named = re.match(r"# Fault atlas of QEMU (\S+)\n", text)
    assert named
    assert named[1] in pinned.version


def test_another_scenario_makes_the_page_stale():
    before, after = {"atlas-x.yaml": b"scenario: atlas-x\n"}, {"atlas-x.yaml": b"scenario: atlas-y\n"}
    text = page(chart(gathered(BLOCK, sources=before)))
    assert fingerprint_of(text) == fingerprint(before)
    assert fingerprint_of(text) not in (fingerprint(after), fingerprint({}))


def test_a_page_that_was_edited_shows_it():
    text = page(chart(gathered(BLOCK)))
    assert as_written(text)
    assert not as_written(text.replace("| as the spec |", "| as the law |"))
    assert not as_written("# Fault atlas\n")
    assert fingerprint_of("# Fault atlas\n") == ""
