"""A typo in the name of a domain, with a real guest: a failure with its cause, however many DMAs it keeps back.

Linux logs about three faults in five seconds (`harness.log_allowance`). Each of these DMAs must land, so none of their
faults was provoked; what the log has no room for would leave the record of a step unreadable.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from harness import runner
from harness.equipment import open_host
from harness.evidence import JOURNAL, VariantDirectory
from harness.judge import judge_variant
from harness.log_allowance import LOGGED_FAULTS
from harness.plan import plan_all
from harness.result import unseen
from harness.suite import ExitCode, exit_code
from harness.verdict import Outcome

pytestmark = pytest.mark.guest

#: More than the log has room for. The map of line 8 must be for 'team'.
REFUSED = 5

SCENARIO = (
    """\
scenario: wrong-domain
title: A typo in the name of a domain
devices: {keeper: {model: edu}, other: {model: edu}}
steps:
  - assign: {device: keeper, domain: team}
  - assign: {device: other, domain: taem}
  - map: {device: other, buffer: shared, iova: 0x200000, size: 64KiB}
"""
    + REFUSED
    * """\
  - dma: {device: keeper, write: 64, to: shared}
    expect: landed
"""
)


#: As many blocked DMAs as the log has room for, and one more that is refused although it must land.
NO_ROOM_LEFT = (
    """\
scenario: wrong-domain
title: A typo in the name of a domain, behind blocks that use up the room in the log
devices: {keeper: {model: edu}, other: {model: edu}}
steps:
  - assign: {device: keeper, domain: team}
  - assign: {device: other, domain: taem}
  - map: {device: other, buffer: shared, iova: 0x200000, size: 64KiB}
  - dma: {device: other, write: 64, to: shared}
    expect: landed
  - plant: {canary: victim}
"""
    + LOGGED_FAULTS
    * """\
  - dma: {device: other, write: 64, to: victim}
    expect: {blocked: {reason: pte-write}}
"""
    + """\
  - dma: {device: keeper, write: 64, to: shared}
    expect: landed
counter_proof: [iommu_off]
"""
)


def run_of(place, text):
    """Run a scenario, and give its result and its directory."""
    file = place / "wrong-domain.yaml"
    file.write_text(text, encoding="utf-8")
    host = open_host(print)
    [plan] = plan_all([file], host)
    directory = VariantDirectory(place / "wrong-domain" / "default")
    directory.path.mkdir(parents=True)
    return runner.run_plan(plan, directory, host, prove=False, progress=unseen), directory


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("run"), SCENARIO)


def test_a_refusal_that_nobody_expects_finds_room_in_the_log(tmp_path):
    result, _ = run_of(tmp_path, NO_ROOM_LEFT)

    assert exit_code([result]) is ExitCode.FAILED
    assert "'keeper' should have landed, but was refused" in result.reason


def test_each_of_them_is_a_failure_that_tells_its_cause(run):
    result, directory = run
    verdict = judge_variant(directory)

    assert exit_code([result]) is ExitCode.FAILED
    assert [finding.outcome for finding in verdict.findings] == [Outcome.FAIL] * REFUSED
    assert result.reason.endswith("likely cause: 'shared' is mapped in 'taem', line 7; 'keeper' is in 'team', line 5")


def test_nothing_that_is_missing_after_the_first_takes_it_back(run, tmp_path):
    _, directory = run
    for name in ("plan.json", "trace.log", "console.log"):
        (tmp_path / name).write_bytes(directory.file(name).read_bytes())
    lines = directory.file(JOURNAL).read_text(encoding="utf-8").splitlines()
    first = [e for e in map(json.loads, lines) if (e["kind"], e["step"]) == ("step-end", 3)]
    end = next(n for n, line in enumerate(lines, start=1) if json.loads(line) == first[0])
    dice = random.Random(11)  # noqa: S311  # the same each time
    spoiled = VariantDirectory(tmp_path)

    for _ in range(40):
        kept = [line for line in lines[end:] if dice.random() > 0.1]
        Path(tmp_path / JOURNAL).write_text("\n".join(lines[:end] + kept) + "\n", encoding="utf-8")

        assert judge_variant(spoiled).outcome is Outcome.FAIL
