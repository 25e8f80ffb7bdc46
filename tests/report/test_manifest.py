from __future__ import annotations

import json

import pytest

from harness.errors import HarnessError
from harness.report.manifest import Differences, verify
from harness.report.write import write_reports

VICTIM = "cross-device-denial/default/console.log"


def test_an_untouched_run_has_no_differences(good):
    write_reports(good[0])
    assert verify(good[0]) == Differences()


def test_each_kind_of_difference_is_named(good):
    run, _ = good
    write_reports(run)
    (run.path / VICTIM).write_text("other")
    (run.path / "hotplug-ten-times/default/qemu.argv").unlink()
    (run.path / "extra").write_text("")
    assert verify(run) == Differences((VICTIM,), ("hotplug-ten-times/default/qemu.argv",), ("extra",))


def test_making_the_reports_again_does_not_hide_changed_evidence(good):
    run, _ = good
    write_reports(run)
    (run.path / VICTIM).write_text("other")
    write_reports(run)
    assert verify(run) == Differences(changed=(VICTIM,))


def test_what_the_run_was_made_with_is_recorded(good):
    write_reports(good[0])
    made_with = json.loads((good[0].path / "manifest.json").read_text())["made_with"]
    assert made_with["qemu_digest"] == "ab" * 32
    assert {image["digest"] for image in made_with["images"].values()} <= {"12" * 32, "13" * 32}


@pytest.mark.parametrize("text", [None, "", "[]", "{}"])
def test_a_run_without_a_readable_manifest_is_told(good, text):
    if text is not None:
        (good[0].path / "manifest.json").write_text(text)
    with pytest.raises(HarnessError, match="no readable manifest"):
        verify(good[0])
