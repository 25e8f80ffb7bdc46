"""Faults provoked, witnessed and judged per second on a machine without a guest."""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path

from harness import plan as planning
from harness import runner
from harness.atlas.gathered import provoked_in
from harness.bench.figures import Figure
from harness.bench.setting import Setting, interleaved, timed
from harness.errors import InfraError
from harness.evidence import VariantDirectory
from harness.result import unseen
from harness.verdict import Outcome

#: The scenario of the atlas with most faults in one machine.
SCENARIO = Path("scenarios/atlas-legacy.yaml")


def bare_faults_per_second(setting: Setting) -> Figure:
    """Run one variant of the fault atlas again and again, each from the start of QEMU to the verdict.

    Each fault is a control DMA, the attack, and the healed one, with registers, trace and bytes judged for each.
    """
    plan = next(plan for plan in planning.plan_all([SCENARIO], setting.host) if plan.skip is None)
    directory = setting.directory("faults")

    def run(number: int) -> float:
        variant = VariantDirectory(directory / str(number) / "a" / "b")
        variant.path.mkdir(parents=True)
        with timed() as watch:
            result = runner.run_plan(plan, variant, setting.host, prove=False, progress=unseen)
        if result.outcome is not Outcome.PASS:
            raise InfraError(f"{plan.id} did not pass: {result.reason}", evidence=variant.path)
        faults = len(provoked_in(variant))
        shutil.rmtree(variant.path)
        return faults / watch.seconds

    samples = interleaved(setting, {"faults_per_second": run})
    return Figure(value=statistics.median(samples["faults_per_second"]), samples=samples)
