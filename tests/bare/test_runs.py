"""Whole runs on a bare machine: an end that nobody asked for is told as what it is, and how fast faults are proven."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from harness import plan as planning
from harness import runner
from harness.errors import LaunchError
from harness.evidence import JOURNAL, VariantDirectory
from harness.plan import Plan
from harness.result import Progress, unseen
from harness.verdict import Outcome
from harness.vtd.registers import FECTL
from tests.bare.mutation import judged
from tests.bare.test_machine import EDU

pytestmark = pytest.mark.qemu

LEGACY = Path("scenarios/atlas-legacy.yaml")


@pytest.fixture
def plan(host) -> Plan:
    return next(plan for plan in planning.plan_all([LEGACY], host) if plan.skip is None)


@pytest.fixture
def variant(tmp_path) -> VariantDirectory:
    directory = VariantDirectory(tmp_path / "run" / "legacy" / "default")
    directory.path.mkdir(parents=True)
    return directory


class Killer:
    """Kills QEMU when a step begins."""

    def __init__(self, variant: VariantDirectory, *, at: str) -> None:
        self.variant, self.at = variant, at

    def __call__(self, event: Progress) -> None:
        if event.phase.startswith(self.at):
            entries = map(json.loads, (self.variant.path / JOURNAL).read_text().splitlines())
            os.kill(next(e["data"]["pid"] for e in entries if e["kind"] == "start"), signal.SIGKILL)


def test_the_end_of_qemu_within_a_run_is_told_with_its_status_and_never_as_a_timeout(plan, variant, host):
    begun = time.monotonic()
    result = runner.run_plan(plan, variant, host, prove=False, progress=Killer(variant, at="step 3/"))
    assert time.monotonic() - begun < 15
    assert (result.outcome, "QEMU ended on its own with exit status -9" in result.reason) == (Outcome.ERROR, True)
    texts = [finding.text for finding in judged(variant.path).findings]
    assert "step 2 (provoke) did not finish, so nothing is known of it" not in texts
    assert "step 3 (provoke) did not finish, so nothing is known of it" in texts


def test_what_a_dying_qemu_said_is_told(session_of, qemu_build):
    if int(qemu_build.version.partition(".")[0]) >= 11:
        pytest.skip("QEMU 11 survives a wide access to a narrow register")
    with session_of(EDU) as session, pytest.raises(LaunchError) as told:
        session.machine.set_register(FECTL, 0, 8)
    assert (told.value.exit_status, "Assertion `size == 4' failed" in told.value.stderr) == (-signal.SIGABRT, True)
    assert "QEMU ended on its own with exit status -6" in told.value.message


@pytest.mark.parametrize("spoil", ["trace file", "end", "collected", "watching"])
def test_a_record_that_lacks_one_of_its_parts_is_no_proof(plan, variant, host, spoil):
    assert runner.run_plan(plan, variant, host, prove=False, progress=unseen).outcome is Outcome.PASS
    if spoil == "trace file":
        file = variant.path / "trace.log"
        file.write_text("".join(line for line in file.read_text().splitlines(keepends=True)[:-4]))
    else:
        journal = variant.path / JOURNAL
        lines = journal.read_text().splitlines(keepends=True)
        kept = [line for line in lines if f'"kind": "{spoil}"' not in line]
        assert len(kept) == len(lines) - 1
        journal.write_text("".join(kept))
    assert judged(variant.path).outcome is Outcome.ERROR


def test_how_many_faults_a_second_are_proven(plan, variant, host, capsys):
    begun = time.monotonic()
    assert runner.run_plan(plan, variant, host, prove=False, progress=unseen).outcome is Outcome.PASS
    seconds = time.monotonic() - begun
    faults = len(judged(variant.path).provoked)
    assert faults > 40
    with capsys.disabled():
        print(f" {faults} faults in {seconds:.2f} s, {faults / seconds:.0f} a second", end="")
