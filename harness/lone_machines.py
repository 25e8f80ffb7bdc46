"""Machines that one variant of a run alone has, for which a template is made to be restored once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from harness.machine.spec import MachineSpec
from harness.plan import Plan

BOOT_LONE_HELP = "boot a variant whose machines nothing else in this run uses, instead of making templates to use once"


def booting_lone(plans: Sequence[Plan], *, prove: bool) -> list[Plan]:
    """Give `plans`, those to boot whose machines none of the others has, nor they themselves twice.

    To make a template takes half as long again as to boot, and is worth it from the second restore on. Where `prove`,
    the machines of counter-proofs count too: a variant is booted with them or restored with them.
    """
    machines = [_restored(plan, prove=prove) for plan in plans]
    users = Counter(machine for each in machines for machine in each)
    return [
        replace(plan, start="cold") if each and all(users[machine] == 1 for machine in each) else plan
        for plan, each in zip(plans, machines, strict=True)
    ]


def machine_key(spec: MachineSpec) -> str:
    """What tells the machine of `spec` from others that are restored; a wire is no part of a template."""
    return repr(replace(spec, wires=()))


def _restored(plan: Plan, *, prove: bool) -> list[str]:
    """The machines that `plan` restores."""
    if plan.start != "template" or plan.skip:
        return []
    removed = plan.counter_proofs if prove else ()
    return [machine_key(each.machine) for each in (plan, *(plan.without(name) for name in removed))]
