from __future__ import annotations

import io
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from harness.evidence import VariantDirectory
from harness.report.live import Live, fitted
from harness.report.story import State, tell
from harness.report.terminal import closing, table, time_lines
from harness.report.text import Style, story_lines
from harness.result import Progress

PLAIN = Style()


class Screen(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def story_of(run, results, name):
    result = next(result for result in results if result.id == name)
    return result, tell(VariantDirectory(run.path / result.evidence))


def test_a_failure_tells_step_expected_seen_evidence_and_how_to_repeat(troubled):
    text = "\n".join(story_lines(*story_of(*troubled, "moved-device-loses-the-first")))
    assert "step 5 of 5 (scenarios/moved-device-loses-the-first.yaml:20): 'rogue' writes 64 bytes to 'victim'" in text
    assert "expected: blocked, reason 0x05 pte-write" in text
    assert "seen:     the write of 64 bytes to 'victim' was not blocked" in text
    assert "x bytes     64 bytes at 0x1c7a000 are the rogue's payload" in text
    assert f"evidence: {troubled[0].path}/moved-device-loses-the-first/default" in text
    assert "harness run 'scenarios/moved-device-loses-the-first.yaml::moved-device-loses-the-first'" in text
    assert text.count("was not blocked") == 1


def test_a_story_fits_a_screen(troubled):
    for result in troubled[1]:
        assert len(story_lines(*story_of(*troubled, result.id))) <= 20


def test_no_control_character_of_a_guest_reaches_the_terminal(troubled):
    result, story = story_of(*troubled, "rogue-descriptor")
    lines = story_lines(replace(result, reason="\x1b[2Jgone\r"), story)
    assert not any("\x1b" in line or "\r" in line for line in lines)


def test_states_of_steps_follow_the_journal_and_the_findings(troubled):
    _, story = story_of(*troubled, "moved-device-loses-the-first")
    assert [step.state for step in story.steps] == [State.DONE, State.DONE, State.HELD, State.DONE, State.FAILED]
    assert story.turning_point is story.steps[4]


def test_a_damaged_journal_is_part_of_the_story(good):
    run, results = good
    path = run.path / results[0].evidence / "journal.jsonl"
    path.write_text("not json\n" + path.read_text())
    assert any("journal.jsonl:1" in note for note in tell(VariantDirectory(path.parent)).notes)


def test_table_shows_each_witness_and_counter_proof(troubled):
    lines = table(troubled[1], PLAIN)
    line = next(line for line in lines if "unmapped-write-is-blocked" in line)
    assert "PASS" in line
    assert "announced + log + trace + bytes + others +" in line
    assert "iommu_off: red passthrough: red" in line
    assert "log ? trace ? bytes x" in next(line for line in lines if "moved-device" in line)
    assert "iommu_off: vacuous" in next(line for line in lines if "write-only-map" in line)


def test_columns_line_up_with_and_without_colour(troubled):
    coloured = table(troubled[1], Style(colour=True, symbols=True))
    plain = table(troubled[1], Style(symbols=True))
    assert any("\x1b[31m" in line for line in coloured)
    assert len({len(line) for line in plain}) == 1


def test_closing_names_totals_evidence_and_page(troubled):
    run, results = troubled
    text = "\n".join(closing(run, results, PLAIN))
    assert "7 passed, 1 failed, 1 error, 1 skipped; 1 vacuous" in text
    assert "skipped needs-kvm: needs KVM; found /dev/kvm missing" in text
    assert text.endswith(f"evidence: {run.path}\nreport:   {run.path / 'index.html'}")


def test_off_a_terminal_there_is_one_line_per_variant_and_nothing_else(troubled):
    stream = io.StringIO()
    with Live(len(troubled[1]), stream) as live:
        for result in troubled[1]:
            live.progress(Progress(result.id, "booting"))
            live.ended(result)
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(troubled[1])
    assert lines[0] == " 1/10 + unmapped-write-is-blocked  10.6 s"
    assert "\x1b" not in stream.getvalue()


def shown(stream):
    """What a terminal shows after all that was written: the sequences that `Live` uses, and no others."""
    lines, row, column = [""], 0, 0
    for part in re.split(r"(\x1b\[\d*[A-Za-z]|[\r\n])", stream.getvalue()):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[J":
            lines = [*lines[:row], lines[row][:column]]
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1])
            assert row >= 0, "the block was wiped higher than it stands"
        elif not part.endswith("m") or not part.startswith("\x1b"):
            lines[row] = lines[row][:column] + part + lines[row][column + len(part) :]
            column += len(part)
    return lines


@pytest.fixture
def screen(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    return Screen()


def test_on_a_terminal_each_worker_has_a_line_that_fits_and_all_are_wiped(troubled, screen):
    first, second = troubled[1][:2]
    with Live(stream=screen) as live:
        live.expect([first.id, second.id], usual={second.id: 1000.0}, workers=2)
        live.progress(Progress(first.id, "step 3/6 " + "x" * 500), 1)
        live.progress(Progress(second.id, "booting"), 2)
        lines = shown(screen)
        assert lines[0].startswith("0/2 done, 0 s, about 16 min 40 s left")
        assert lines[1].startswith(f"    0 s  {first.id}: step 3/6 x")
        assert lines[2] == f"    0 s  {second.id}: booting"
        assert {len(line) < 60 for line in lines} == {True}
        live.ended(first)
        assert shown(screen)[0] == f"1/2 ✓ {first.id}  {first.duration_s:.1f} s"
        assert [line.partition(":")[0] for line in shown(screen)[2:]] == [f"    0 s  {second.id}"]
        live.ended(second)
    assert [line[:3] for line in shown(screen)] == ["1/2", "2/2", ""]


def test_on_a_terminal_what_is_being_prepared_goes_and_what_was_found_stays(screen):
    with Live(stream=screen) as live:
        live.preparing("template debian-13: booting", 1)
        assert shown(screen) == ["template debian-13: booting"]
        live.preparing("template debian-13: damaged, its ram is not what was saved; making it anew", 1)
        assert len(shown(screen)) == 2
    assert shown(screen) == ["template debian-13: damaged, its ram is not what was saved; making it anew", ""]


def test_off_a_terminal_what_several_workers_wait_for_is_told_once(troubled):
    stream = io.StringIO()
    with Live(stream=stream) as live:
        live.expect(["a", "b", "c"], workers=3)
        for worker in (1, 2, 3):
            live.preparing("template debian-13: waiting for another that is at it", worker)
        live.preparing("template debian-13: ready", 1)
    assert len(stream.getvalue().splitlines()) == 2


@pytest.fixture
def restless():
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_lines_from_several_threads_stay_whole(troubled):
    stream = io.StringIO()
    with Live(len(troubled[1]) * 200, stream) as live, ThreadPoolExecutor(4) as threads:
        for _ in range(200):
            for result in troubled[1]:
                threads.submit(live.ended, result)
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(troubled[1]) * 200
    assert [int(line.partition("/")[0]) for line in lines] == list(range(1, len(lines) + 1))


@pytest.mark.parametrize(
    ("text", "columns", "fits"), [("abcd", 3, "abc"), ("漢字", 3, "漢"), ("e\u0301a", 1, "e\u0301")]
)
def test_a_line_is_cut_by_the_columns_it_takes(text, columns, fits):
    assert fitted(text, columns) == fits


def test_what_took_the_time_is_told(good):
    run, results = good
    results = [replace(result, start="template") for result in results[1:]] + [results[0]]
    boot = run.path / results[0].evidence / "template"
    boot.mkdir()
    with VariantDirectory(boot).journal() as journal:
        journal.record("process", "start", t=100.0)
        journal.record("process", "saved", t=104.5)
    for result in results[:-1]:
        with (run.path / result.evidence / "journal.jsonl").open("a") as journal:
            journal.write('{"t": 1, "source": "process", "kind": "restored", "step": null, "data": {}}\n')
    slowest, started = time_lines(run, results)
    assert slowest.startswith("slowest:  truth-table[intel_iommu=off,iommu=strict] ")
    assert slowest.count(", ") == 2
    assert started == f"started:  {len(results) - 1} from templates, 1 cold; 1 template made in 4.5 s"
    (run.path / results[0].evidence / "journal.jsonl").unlink()
    assert time_lines(run, results)[1].startswith(f"started:  {len(results) - 2} from templates"), "it never came up"


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colour_can_be_refused(monkeypatch, variable, value):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Style.of(Screen()).colour
    monkeypatch.setenv(variable, value)
    assert not Style.of(Screen()).colour
