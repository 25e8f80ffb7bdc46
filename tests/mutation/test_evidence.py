"""No single change to recorded evidence keeps a PASS without a reason, and none ends in a traceback."""

from __future__ import annotations

import itertools
import json

import pytest

from harness import plan as planning
from harness import runner
from harness.cli import main
from harness.evidence import VariantDirectory
from harness.forms.check import has_form, unreadable
from harness.judge import judge_variant
from harness.result import unseen
from harness.verdict import Outcome
from tests.mutation import REPOSITORY
from tests.mutation.changes import DROP, MISSING, NULL, TYPE, VALUE, changes
from tests.mutation.recorded import recorded
from tests.mutation.tolerated import TOLERATED, reason_for
from tests.mutation.trial import Tried, tried

#: The share of all changes that is tried here; `make test-all` tries those of a whole run.
SHARE = 0.04


@pytest.fixture(scope="module")
def variants():
    with recorded() as found:
        yield found


def unexplained(found: Tried) -> list[str]:
    return [str(one) for one in found.survivors if reason_for(one) is None]


def test_the_recorded_variants_pass_and_every_entry_has_its_form(variants):
    for directory in variants:
        assert judge_variant(directory).outcome is Outcome.PASS
        assert [problem for entry in directory.entries() if (problem := unreadable(entry))] == []


def test_a_sample_of_changes_under_linux(variants):
    found = Tried.of(tried(variants, most=1, share=SHARE))

    assert unexplained(found) == []
    assert found.number > 200


@pytest.mark.qemu
@pytest.mark.parametrize("scenario", ["atlas-recording", "atlas-queue-256", "atlas-nvme"])
def test_a_sample_of_changes_to_bare_machines(host, scenario, tmp_path):
    plan = planning.plan_all([REPOSITORY / f"scenarios/{scenario}.yaml"], host)[0]
    variant = VariantDirectory(tmp_path / plan.scenario / "default")
    variant.path.mkdir(parents=True)
    runner.run_plan(plan, variant, host, prove=False, progress=unseen)

    found = Tried.of(tried([variant], most=1, share=SHARE * 2))

    assert unexplained(found) == []
    assert found.number > 20


def test_every_kind_of_change_is_tried(variants):
    places = {change.place for change in changes(variants[0].entries(), each=1)}

    assert {place.change for place in places} == {DROP, VALUE, MISSING, NULL, TYPE}
    assert {"observation/msi", "kmsg/line", "agent/call(kmsg)"} <= {place.what for place in places}


def test_what_the_judges_read_of_a_kind_has_a_form(variants):
    """Entries without one are those that the list names as a whole: nobody reads them."""
    whole = [one.what for one in TOLERATED if (one.path, one.changes) == ("*", "*")]
    formless = {
        change.place.what
        for directory in variants
        for change in changes(directory.entries(), each=1)
        if not has_form(change.original)
    }

    from fnmatch import fnmatchcase

    assert [what for what in sorted(formless) if not any(fnmatchcase(what, pattern) for pattern in whole)] == []


DAMAGES = {
    "a field that is not there": lambda entry: entry["data"].pop("physical"),
    "a field of another type": lambda entry: entry["data"].update(address="0x1000"),
    "a field that is null": lambda entry: entry["data"].update(before=None),
    "a message that is no pair": lambda entry: entry["data"].update(bystanders={"own": ["one"]}),
}


def a_run(variants, place, damage) -> tuple[object, int]:
    """Copy the variant whose write is blocked, with one line of its journal damaged; give the line's number too."""
    source = next(one for one in variants if "unmapped-write" in str(one.path))
    target = place / "run" / "unmapped-write" / "default"
    target.mkdir(parents=True)
    for file in source.path.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    journal = target / "journal.jsonl"
    lines = journal.read_text(encoding="utf-8").splitlines()
    number = next(
        i for i, line in enumerate(lines) if (e := json.loads(line))["source"] == "observation" and e["kind"] == "dma"
    )
    lines[number] = damage(lines[number])
    journal.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target, number + 1


def with_data(change):
    def damage(line):
        entry = json.loads(line)
        change(entry)
        return json.dumps(entry)

    return damage


@pytest.mark.parametrize("change", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_entry_is_an_error_that_names_its_line(variants, change, tmp_path, capsys):
    target, line = a_run(variants, tmp_path, with_data(change))

    assert main(["judge", str(target.parents[1])]) in (1, 3)
    assert f"journal.jsonl:{line} (observation dma) cannot be read: " in capsys.readouterr().out
    assert judge_variant(VariantDirectory(target)).outcome is Outcome.ERROR


NO_ENTRIES = [
    "nothing",
    "7",
    "[1, 2]",
    "null",
    '{"t": 1}',
    '{"t": 1, "source": "x", "kind": "y", "step": "z", "data": {}}',
    "[" * 5000,
]


@pytest.mark.parametrize("line", NO_ENTRIES, ids=range(len(NO_ENTRIES)))
def test_a_line_that_is_no_entry_is_an_error_that_names_it(variants, line, tmp_path, capsys):
    target, number = a_run(variants, tmp_path, lambda _: line)

    assert main(["judge", str(target.parents[1])]) in (1, 3)
    assert f"journal.jsonl:{number}: not a journal entry" in capsys.readouterr().out
    assert judge_variant(VariantDirectory(target)).outcome is Outcome.ERROR


#: What is done to which file, and what must be said then.
FILES = [
    ("journal.jsonl", "missing", "the run was cut off"),
    ("journal.jsonl", "cut", "the run was cut off"),
    ("trace.log", "missing", "trace.log is missing"),
    ("trace.log", "cut", "trace.log holds"),
    ("console.log", "missing", "console.log is missing"),
    ("console.log", "cut", "console.log has no such line"),
    ("plan.json", "cut", "no plan can be read"),
]


@pytest.mark.parametrize("file", FILES, ids=[f"{name}-{done}" for name, done, _ in FILES])
def test_a_file_that_is_missing_or_cut_is_an_error_that_names_it(variants, file, tmp_path, capsys):
    name, done, said = file
    target, _ = a_run(variants, tmp_path, lambda line: line)
    whole = (target / name).read_bytes()
    (target / name).unlink()
    if done == "cut":
        (target / name).write_bytes(whole[: len(whole) // 2])

    assert main(["judge", str(target.parents[1])]) in (1, 3)
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("steps", [5, None, [], [5], [{"dma": 5}], "x"])
def test_a_damaged_plan_is_an_error(variants, steps, tmp_path, capsys):
    target, _ = a_run(variants, tmp_path, lambda line: line)
    plan = json.loads((target / "plan.json").read_text())
    plan["definition"]["steps"] = steps
    (target / "plan.json").write_text(json.dumps(plan))

    assert main(["judge", str(target.parents[1])]) == 3
    assert "does not hold the steps of a scenario" in capsys.readouterr().out


def test_the_list_tells_of_what_there_is():
    """Each line has a reason, and no two are the same."""
    assert all(one.reason for one in TOLERATED)
    places = [(one.what, one.path, one.changes, one.steps) for one in TOLERATED]
    assert [place for place, group in itertools.groupby(sorted(places)) if len(list(group)) > 1] == []
