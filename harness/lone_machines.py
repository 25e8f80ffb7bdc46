"""Machines that one variant of a run alone has, for which a template is made to be restored once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from harness.plan import Plan

#: What the option is for that asks for it.
BOOT_LONE = "boot each machine that only one scenario of this run has, instead of making a template to use once"


def booting_lone(plans: Sequence[Plan], *, prove: bool) -> list[Plan]:
    """Give `plans`, those to boot whose machines none of the others has, nor they themselves twice.

    To make a template takes half as long again as to boot, and is worth it from the second restore on. Where `prove`,
    the machines of counter-proofs count too.
    """
    machines = [_machines(plan, prove=prove) for plan in plans]
    users = Counter(machine for each in machines for machine in each)
    return [
        replace(plan, start="cold") if each and all(users[machine] == 1 for machine in each) else plan
        for plan, each in zip(plans, machines, strict=True)
    ]


def _machines(plan: Plan, *, prove: bool) -> list[str]:
    """What tells each machine that `plan` restores from others; a wire is no part of a template."""
    if plan.start != "template" or plan.skip:
        return []
    removed = plan.counter_proofs if prove else ()
    return [repr(replace(each.machine, wires=())) for each in (plan, *(plan.without(name) for name in removed))]
