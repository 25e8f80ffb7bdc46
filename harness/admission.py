"""Whether VFIO admits a device: an IOMMU group goes to user space as a whole, or not at all.

The devices of a group can reach each other without the unit seeing it, so Linux gives a group to one owner. VFIO takes
it only if no member is held by a driver that makes DMA of its own (iommu_group_claim_dma_owner in the kernel's
drivers/iommu/iommu.c). Witnesses are VFIO itself, by what became of the assignment, by the group's flag and by what it
answers to a second attempt, and the drivers of all members as sysfs tells them.
"""

from __future__ import annotations

from typing import Any

from harness.errors import OperationRefused
from harness.judgement import Judgement, StepEvidence, single
from harness.session import AttachedDevice, Session
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict

_VFIO = "vfio-pci"


def attempt(session: Session, device: AttachedDevice, domain: str) -> None:
    """Try to put `device` into `domain`; record what became of it, and what its group then is."""
    refusal = None
    try:
        session.enter_domain(device, domain)
    except OperationRefused as refused:
        if refused.operation != "domain_attach":
            raise
        refusal = {"reason": refused.reason, "errno": refused.errno}
    addresses = {name: known.address for name, known in session.devices.items() if known.address}
    status = session.call("group_status", bdf=device.address)
    session.record("admission", device=device.name, refusal=refusal, status=status, addresses=addresses)


def judge_admission(evidence: StepEvidence, because_of: tuple[str, ...]) -> Judgement:
    """Hold the attempt to what must have come of it: a refusal because of these devices, or none if they are none."""
    seen = evidence.observation("admission")
    if seen is None:
        return single(Outcome.ERROR, "it was not recorded what became of the assignment", evidence.index)
    status, addresses = seen.data["status"], seen.data["addresses"]
    members = {member["bdf"] for member in status["members"] if not member["bridge"]}
    if addresses.get(seen.data["device"]) not in members:
        text = f"the group was read without '{seen.data['device']}' in it"
        return single(Outcome.ERROR, text, evidence.index, seen.ref)
    if (other := _otherwise_answered(evidence, seen.data)) is not None:
        return single(Outcome.ERROR, other, evidence.index, seen.ref)
    vfio, refused = _vfio(evidence, seen.data, seen.ref, expected=bool(because_of))
    drivers = _drivers(evidence, status, addresses, because_of, seen.ref)
    who = f"group {status['group']} of '{seen.data['device']}'"
    holders = ", ".join(f"{_named(bdf, addresses)} ({driver})" for bdf, driver in _held(status).items())
    if vfio.verdict is WitnessVerdict.MISSING:
        outcome, text = Outcome.ERROR, f"contradiction: {vfio.evidence}"
    elif refused != bool(holders):
        outcome, text = Outcome.ERROR, f"contradiction: {vfio.evidence}, but kernel drivers hold {holders or 'nobody'}"
    elif vfio.verdict is WitnessVerdict.DENIES or drivers.verdict is WitnessVerdict.DENIES:
        outcome, text = Outcome.FAIL, f"{vfio.evidence}; kernel drivers hold {holders or 'nobody'} in {who}"
    elif refused:
        outcome, text = Outcome.PASS, f"VFIO refuses {who}, because kernel drivers hold {holders}"
    else:
        outcome, text = Outcome.PASS, f"VFIO admits {who}, where no kernel driver holds anybody"
    finding = Finding(outcome=outcome, text=text, step=evidence.index, refs=(seen.ref,))
    return Judgement(findings=(finding,), witnesses=(vfio, drivers))


def _otherwise_answered(evidence: StepEvidence, seen: dict[str, Any]) -> str | None:
    """Tell where the agent's own answers, as the journal has them, say something else than the observation."""
    calls = [entry for entry in evidence.entries if (entry.source, entry.kind) == ("agent", "call")]
    last = {str(entry.data["op"]): entry for entry in calls}
    status, attached = last.get("group_status"), last.get("domain_attach")
    if status is not None and status.data.get("ok") != seen["status"]:
        return f"{status.ref}: the agent tells another group than the one that was read"
    refusal = seen["refusal"]
    wanted = None if refusal is None else f"guest refused 'domain_attach': {refusal['reason']}"
    if attached is not None and attached.data.get("error") != wanted:
        return f"{attached.ref}: the agent tells another end of the assignment than the one that was recorded"
    return None


def _vfio(evidence: StepEvidence, seen: dict[str, Any], ref: str, *, expected: bool) -> tuple[Witness, bool]:
    """Read VFIO's answers; with them comes whether it refused, which they must agree on."""
    refusal, status = seen["refusal"], seen["status"]
    attempted = "the assignment was refused" if refusal else "the assignment was accepted"
    again = f"a container is refused with errno {status['errno']}" if status["errno"] else "a container is given"
    text = f"{attempted}, the group is {'viable' if status['viable'] else 'not viable'}, {again}"
    refused = refusal is not None
    in_domain = status["domain"] is not None
    if not (refused == (not status["viable"]) == bool(status["errno"]) == (not in_domain)):
        verdict = WitnessVerdict.MISSING
    else:
        verdict = WitnessVerdict.CONFIRMS if refused == expected else WitnessVerdict.DENIES
    return Witness(name="vfio", step=evidence.index, verdict=verdict, evidence=text, refs=(ref,)), refused


def _drivers(
    evidence: StepEvidence, status: dict[str, Any], addresses: dict[str, str], because_of: tuple[str, ...], ref: str
) -> Witness:
    """Read the members' drivers: exactly the devices named are held by another driver than vfio-pci."""
    held = _held(status)
    right = set(held) == {addresses.get(name) for name in because_of}
    listed = ", ".join(f"{member['bdf']} ({member['driver'] or 'no driver'})" for member in status["members"])
    return Witness(
        name="drivers",
        step=evidence.index,
        verdict=WitnessVerdict.CONFIRMS if right else WitnessVerdict.DENIES,
        evidence=f"group {status['group']} holds {listed}",
        refs=(ref,),
    )


def _held(status: dict[str, Any]) -> dict[str, str]:
    """Give the members that a kernel driver holds; a bridge's driver makes no DMA of its own, so it does not count."""
    return {
        member["bdf"]: member["driver"]
        for member in status["members"]
        if not member["bridge"] and member["driver"] not in (_VFIO, None)
    }


def _named(bdf: str, addresses: dict[str, str]) -> str:
    names = [name for name, address in addresses.items() if address == bdf]
    return f"'{names[0]}' at {bdf}" if names else bdf
