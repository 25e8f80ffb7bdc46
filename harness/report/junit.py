"""`junit.xml` of `harness run`, in the dialect CI servers read (pytest writes its own with --junit-xml)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from harness.evidence import RunDirectory, VariantDirectory, write_whole
from harness.report.story import tell
from harness.report.text import story_lines
from harness.result import Result
from harness.verdict import Outcome

JUNIT = "junit.xml"

#: What XML 1.0 cannot hold; consoles and kernels do write such characters.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_ELEMENT = {Outcome.FAIL: "failure", Outcome.ERROR: "error", Outcome.SKIP: "skipped"}


def write_junit(run: RunDirectory, host: Mapping[str, Any], results: Sequence[Result]) -> Path:
    """Write one test suite with one case per variant; a vacuous scenario is a failure."""
    suite = ET.Element("testsuite", name="vtd", tests=str(len(results)), time=_seconds(results))
    for outcome, attribute in ((Outcome.FAIL, "failures"), (Outcome.ERROR, "errors"), (Outcome.SKIP, "skipped")):
        suite.set(attribute, str(sum(_counted(result) is outcome for result in results)))
    properties = ET.SubElement(suite, "properties")
    for name, value in (("qemu", host.get("qemu")), ("accelerator", host.get("accelerator"))):
        ET.SubElement(properties, "property", name=name, value=_legal(str(value or "unknown")))
    for result in results:
        suite.append(_case(run, result))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    path = run.path / JUNIT
    write_whole(path, ET.tostring(root, encoding="unicode", xml_declaration=True))
    return path


def _case(run: RunDirectory, result: Result) -> ET.Element:
    story = tell(VariantDirectory(run.path / result.evidence))
    case = ET.Element(
        "testcase",
        classname=_legal(story.source.removesuffix(".yaml").replace("/", ".") or result.scenario),
        name=_legal(result.id),
        time=f"{result.duration_s:.3f}",
    )
    outcome = _counted(result)
    if outcome in _ELEMENT:
        element = ET.SubElement(case, _ELEMENT[outcome], message=_legal(_message(result)))
        element.text = _legal("\n".join(story_lines(result, story)))
    ET.SubElement(case, "system-out").text = _legal(f"evidence: {result.evidence}")
    return case


def _counted(result: Result) -> Outcome:
    return Outcome.FAIL if result.outcome is Outcome.PASS and result.vacuous else result.outcome


def _message(result: Result) -> str:
    if result.vacuous and result.outcome is Outcome.PASS:
        return f"vacuous: stayed green without {', '.join(result.vacuous)}"
    return result.reason


def _seconds(results: Sequence[Result]) -> str:
    return f"{sum(result.duration_s for result in results):.3f}"


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)
