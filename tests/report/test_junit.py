from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

from harness.report.junit import write_junit
from harness.verdict import Outcome


def parsed(run, results):
    return ET.parse(write_junit(run, {"qemu": "10.0.2"}, results)).getroot().find("testsuite")  # noqa: S314 - our own file


def test_counts_and_elements_are_those_of_the_outcomes(troubled):
    suite = parsed(*troubled)
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "10", "failures": "2", "errors": "1", "skipped": "1",
    }  # fmt: skip
    assert {case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None} == {
        "moved-device-loses-the-first",
        "write-only-map",
    }
    assert suite.find(".//testcase[@name='rogue-descriptor']/error") is not None
    assert "needs KVM" in suite.find(".//testcase[@name='needs-kvm']/skipped").get("message")


def test_a_vacuous_scenario_is_a_failure_that_says_so(troubled):
    failure = parsed(*troubled).find(".//testcase[@name='write-only-map']/failure")
    assert "vacuous" in failure.get("message")


def test_a_failure_tells_its_story(troubled):
    text = parsed(*troubled).find(".//testcase[@name='moved-device-loses-the-first']/failure").text
    assert "scenarios/moved-device-loses-the-first.yaml:20" in text
    assert "expected: blocked" in text


def test_characters_that_xml_cannot_hold_are_replaced(good):
    run, results = good
    results[0] = replace(results[0], outcome=Outcome.FAIL, reason="\x1b[31mpanic\x00 & <b>")
    message = parsed(run, results).find(".//failure").get("message")
    assert message == "\N{REPLACEMENT CHARACTER}[31mpanic\N{REPLACEMENT CHARACTER} & <b>"
