from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

from example_run import HOST, Writer

from harness.evidence import VariantDirectory
from harness.report.html import render
from harness.report.results import collect
from harness.report.story import tell
from harness.report.timeline import LEFT, WIDTH, timeline
from harness.report.write import write_reports


class Page(HTMLParser):
    """Collects links, external references and the stack of open elements."""

    void = ("meta", "input", "rect", "line", "circle")

    def __init__(self, text):
        super().__init__()
        self.links, self.sources, self.open, self.unbalanced, self.elements = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.elements.append((tag, attrs))
        self.links += [attrs["href"]] if tag == "a" else []
        self.sources += [attrs[name] for name in ("src", "data", "action", "srcset") if name in attrs]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.void and (not self.open or self.open.pop() != tag):
            self.unbalanced.append(tag)


def page_of(run):
    write_reports(run)
    text = (run.path / "index.html").read_text()
    return text, Page(text)


def test_elements_are_balanced_and_nothing_is_loaded_from_elsewhere(troubled):
    text, page = page_of(troubled[0])
    assert (page.unbalanced, page.open, page.sources) == ([], [], [])
    assert "<link" not in text
    assert not re.search(r"@import|url\(|https?:", text)


def test_every_link_leads_to_a_file_of_the_run(troubled):
    run, _ = troubled
    _, page = page_of(run)
    assert len(page.links) > 60
    assert [link for link in page.links if not (run.path / unquote(link)).exists()] == []


def test_what_a_guest_wrote_cannot_become_markup(good):
    run, results = good
    evil = "</title><script>alert(1)</script><img src=x onerror=alert(2)>"
    story = run.path / results[0].evidence / "verdict.json"
    story.write_text(story.read_text().replace("nobody else faulted", evil))
    with (story.parent / "journal.jsonl").open("a") as journal:
        journal.write('{"t": 1795334408.0, "source": "kmsg", "kind": "record", "step": 4, "data": ')
        journal.write('{"text": "DMAR: fault </title><script>alert(3)</script>"}}\n')
    results[0] = replace(results[0], reason=evil, title=evil)
    page = Page(render(run, HOST, results))
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert "img" not in [tag for tag, _ in page.elements]


def test_the_policy_allows_the_pages_own_script_and_style_only(good):
    _, page = page_of(good[0])
    policy = next(attrs["content"] for tag, attrs in page.elements if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert not any("style" in attrs or "onclick" in attrs for _, attrs in page.elements)


def test_headline_and_figures_of_a_good_run(good):
    text, _ = page_of(good[0])
    assert "Isolation held" in text
    assert re.search(r"<b>6<small>/6</small></b><span>forbidden DMAs", text)
    assert re.search(r"<b>6<small>/6</small></b><span>attacks succeed", text)


def test_troubled_variants_come_first_and_open(troubled):
    _, page = page_of(troubled[0])
    chapters = [attrs for tag, attrs in page.elements if tag == "details"]
    assert [attrs["data-outcome"] for attrs in chapters] == ["error", "fail", "fail", *["pass"] * 6, "skip"]
    assert ["open" in attrs for attrs in chapters] == [True] * 3 + [False] * 7


def test_a_run_that_was_cut_off_is_shown(troubled):
    run, _ = troubled
    Writer(run, "cut-off", "Cut off", cut_at=3, finished=False).write()
    text, _ = page_of(run)
    assert "began and never ended" in text
    assert "not reached" in text


def test_marks_of_a_step_lie_within_its_bar(good):
    run, results = good
    story = tell(VariantDirectory(run.path / results[0].evidence))
    drawn = timeline(story)
    bars = {bar.label: bar for bar in drawn.bars}
    assert list(bars) == ["boot", "1", "2", "3", "4", "5"]
    fault = next(mark for mark in drawn.marks if mark.tone == "trace")
    assert bars["5"].x <= fault.x <= bars["5"].x + bars["5"].width
    assert fault.count == 16
    assert all(LEFT <= mark.x <= WIDTH for mark in drawn.marks)
    assert [mark.tone for mark in drawn.marks if mark.tone == "log"] == ["log"]


def test_a_variant_that_never_ran_has_no_timeline(troubled):
    run, _ = troubled
    skipped = next(result for result in collect(run) if result.id == "needs-kvm")
    assert timeline(tell(VariantDirectory(run.path / skipped.evidence))) is None
