"""The fault atlas: put together from verdicts, written as page, JSON and HTML, and what makes it incomplete."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from harness.atlas.chart import chart
from harness.atlas.gathered import Gathered, Provocation, gather
from harness.atlas.page import PAGE, fingerprint, fingerprint_of, page
from harness.atlas.raisable import RAISABLE, UNRAISABLE
from harness.atlas.write import write_atlas
from harness.cli.atlas import atlas_files
from harness.errors import HarnessError
from harness.evidence import RunDirectory
from harness.images.lock import read_lock
from harness.images.recipe import RECIPES
from harness.verdict import Conformance, Provoked
from harness.vtd.faults import REASON_BY_CODE, REASONS

BLOCK = Provoked(
    step=0,
    table="legacy",
    levels=4,
    recipe="'rogue' writes 64 bytes with context.present=0",
    source="edu 01:00.0",
    access="write",
    spec="context-not-present",
    seen="context-not-present",
    fault_processing_disabled=False,
    conformance=Conformance.AS_SPEC,
    witnesses=("announcement", "register", "trace"),
)
LINE = (
    "[    3.201] DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x{at} [fault reason 0x02] Present bit"
)


def gathered(*provoked: Provoked, images: tuple[str, ...] = (), **changes) -> Gathered:
    images = images or ("bare",) * len(provoked)
    provocations = tuple(Provocation("atlas-x", *pair) for pair in zip(images, provoked, strict=True))
    return replace(Gathered("10.0.13", provocations, (), (), 2.0), **changes)


def everything() -> list[Provoked]:
    return [replace(BLOCK, spec=reason.name, seen=reason.name) for reason in RAISABLE]


def test_every_reason_is_raisable_or_has_a_cause_why_not():
    assert {reason.code for reason in RAISABLE} | set(UNRAISABLE) == set(REASON_BY_CODE)
    assert not {reason.code for reason in RAISABLE} & set(UNRAISABLE)
    assert len(RAISABLE) == 33


def test_alike_provocations_become_one_row():
    other = replace(BLOCK, levels=3, source="edu 21:00.0", witnesses=("announcement", "trace", "register"))
    made = chart(gathered(BLOCK, other, replace(BLOCK, access="read")))
    code = next(code for code in made.codes if code.reason.name == "context-not-present")
    assert [(recipe.access, recipe.count) for recipe in code.recipes] == [("read", 1), ("write", 2)]
    row = code.recipes[1]
    assert row.where == ("legacy of 3 levels", "legacy of 4 levels")
    assert row.sources == ("edu 01:00.0", "edu 21:00.0")
    assert row.witnesses == ("announcement", "register", "trace")


def test_an_atlas_is_complete_when_every_raisable_reason_was_provoked():
    whole = chart(gathered(*everything()))
    assert whole.complete
    assert (whole.as_json()["raisable"], whole.as_json()["provoked"]) == (33, 33)
    partly = chart(gathered(*everything()[1:]))
    assert not partly.complete
    assert [code.reason.name for code in partly.missing] == ["root-not-present"]
    assert "- not provoked: `0x01 root-not-present`" in page(partly, [])


@pytest.mark.parametrize(
    ("changes", "new"),
    [
        ({"unproven": (("atlas-y", "no trace"),)}, BLOCK),
        ({}, replace(BLOCK, seen="context-invalid", conformance=Conformance.NEW_DEVIATION)),
    ],
)
def test_what_was_not_proven_or_deviates_anew_leaves_it_incomplete(changes, new):
    made = chart(gathered(*everything(), new, **changes))
    assert not made.complete
    assert "NEW DEVIATION" in page(made, []) or "- not proven: atlas-y: no trace" in page(made, [])


def test_the_page_is_the_same_for_two_runs_of_the_same_scenarios():
    lines = [replace(BLOCK, kernel_line=LINE.format(at=at)) for at in ("1000", "fe000")]
    first, second = (page(chart(gathered(line, images=("debian-13",))), []) for line in lines)
    assert first == second
    assert "debian-13: DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x.." in first


def test_a_known_deviation_is_told_with_its_cause():
    known = replace(
        BLOCK, spec="sm-context-not-present", conformance=Conformance.KNOWN_DEVIATION, why="codes of legacy mode"
    )
    text = page(chart(gathered(known)), [])
    assert "| codes of legacy mode | sm-context-not-present | context-not-present | 1 |" in text
    assert "| 1 | 1 known deviation |" in text
    assert "1 known deviation" in text


def test_a_silent_refusal_stands_among_those_without_a_reason():
    made = chart(gathered(replace(BLOCK, spec="", seen="", fault_processing_disabled=True)))
    assert [recipe.seen for recipe in made.others] == [""]
    assert "### Without a reason" in page(made, [])


@pytest.fixture
def run(tmp_path):
    made = RunDirectory(tmp_path / "run")
    made.path.mkdir()
    (made.path / "run.json").write_text(json.dumps({"host": {"qemu": "10.0.13"}}))
    return made


def store(run, name, *, kind="bare", outcome="pass", tags=("atlas",), provoked=(BLOCK,)):
    directory = run.variant(name, "")
    directory.write_json("plan.json", {"tags": tags, "machine": {"kind": kind, "image": "debian-12"}})
    directory.write_json("result.json", {"id": name, "outcome": outcome, "reason": "because", "duration_s": 0.5})
    directory.write_json("verdict.json", {"provoked": [asdict(each) for each in provoked]})


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


def test_a_run_without_the_atlas_is_refused(run):
    store(run, "unmapped-write", tags=("smoke",))
    with pytest.raises(HarnessError, match="no scenario tagged 'atlas'"):
        gather(run)


def test_a_damaged_verdict_is_told(run):
    store(run, "atlas-a")
    run.variant("atlas-a", "").write_json("verdict.json", {"provoked": [{"step": 0}]})
    with pytest.raises(HarnessError, match=r"verdict\.json holds no provoked faults"):
        gather(run)


def test_the_files_of_the_atlas_are_written(run):
    store(run, "atlas-a")
    write_atlas(run, chart(gather(run)), [])
    written = json.loads((run.path / "atlas.json").read_text())
    assert (written["schema"], written["qemu"], written["variants"], written["as_spec"]) == (1, "10.0.13", 1, 1)
    section = Path("docs/results.md").read_text().partition("\n## atlas.json")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert set(written) == set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert written["codes"]["0x02"]["provoked"] == 1
    assert written["codes"]["0x0d"]["why_not"]
    html = (run.path / "atlas.html").read_text()
    assert "1 of 33 raisable reasons provoked on QEMU 10.0.13" in html
    assert html.count('href="#c') == len(REASONS)
    assert (run.path / "atlas.md").read_text().startswith("# Fault atlas of QEMU 10.0.13")


def test_the_committed_page_was_made_from_these_scenarios():
    text = PAGE.read_text(encoding="utf-8")
    assert fingerprint_of(text) == fingerprint(atlas_files()), "`make atlas WRITE=1` writes the page anew"
    assert "33 of 33 raisable reasons provoked" in text
    assert "0 NEW DEVIATION" in text
    (pinned,) = (package for package in read_lock(RECIPES / "qemu.lock") or () if package.name == "qemu-system-x86")
    named = re.match(r"# Fault atlas of QEMU (\S+)\n", text)
    assert named
    assert named[1] in pinned.version


def test_another_scenario_makes_the_page_stale(tmp_path):
    file = tmp_path / "atlas-x.yaml"
    file.write_text("scenario: atlas-x\n")
    before = fingerprint([file])
    file.write_text("scenario: atlas-y\n")
    assert fingerprint([file]) != before
    assert fingerprint_of(page(chart(gathered(BLOCK)), [file])) == fingerprint([file])


def test_a_page_without_a_mark_is_stale():
    assert fingerprint_of("# Fault atlas\n") == ""
