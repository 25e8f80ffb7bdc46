"""Judging a reboot by what was recorded of it; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.evidence import Entry
from harness.judgement import Judgement, StepEvidence, nobody_faulted, single
from harness.rebooting.in_flight import REWRITTEN, goes_on
from harness.rebooting.unit_state import AFTER_RESET, translates, works
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict

#: What QEMU must say of who asked for the reset (ShutdownCause in its qapi/run-state.json).
_CAUSES = {"machine": None, "sysrq": "guest-reset", "kernel": "guest-reset"}

#: The resets that there may be: the one that was asked for, and one more by the firmware (machine.reset).
_RESETS = (("host-qmp-system-reset",), ("host-qmp-system-reset", "guest-reset"))

#: The moments at which both pages are read from outside, and the words for each.
_MOMENTS = {
    "before_end": "before the end",
    "at_end": "at the end",
    "planted": "as planted",
    "at_reset": "at the reset",
    "after": "after the boot",
}

_PAGES = ("mapped", "untranslated")


def judge_reboot(evidence: StepEvidence, device: str, *, strays: bool = False) -> Judgement:
    """Hold a reboot to it: the unit was off, the device wrote nothing more, nobody faulted, and it was a reboot.

    Where QEMU is known to let its write through, to memory at the device's own address, it `strays`.
    """
    seen = evidence.observation("rebooted")
    if seen is None:
        return single(Outcome.ERROR, f"nothing is known of a reboot while '{device}' writes", evidence.index)
    for problem in (*_unknown(evidence, seen.data), *_unread(evidence, seen.data)):
        return single(Outcome.ERROR, problem, evidence.index, seen.ref)
    witnesses = (
        _boot(evidence, seen),
        _unit(evidence.index, seen),
        _bytes(evidence.index, seen, strays=strays),
        _translation(evidence.index, seen),
        _console(evidence),
        nobody_faulted(evidence),
    )
    wrong = [witness for witness in witnesses if witness.verdict is not WitnessVerdict.CONFIRMS]
    fine = f"'{device}' wrote nothing after the reset"
    if strays:
        fine = (
            f"known deviation: after the reset '{device}' wrote to memory at its own address, where the specification "
            "asks for nothing: Bus Master Enable is 0 then (PCI Express Base 7.5.1.1.3)"
        )
    text = wrong[0].evidence if wrong else f"{fine}{_told(seen.data)}"
    outcome = Outcome.FAIL if wrong else Outcome.PASS
    finding = Finding(outcome=outcome, text=text, step=evidence.index, refs=(seen.ref,))
    return Judgement(findings=(finding,), witnesses=witnesses)


def _told(data: dict[str, Any]) -> str:
    """Tell of Linux that it left a device to itself.

    In an orderly restart it switches translation off (intel_iommu_shutdown in drivers/iommu/intel/iommu.c, called by
    native_machine_shutdown) without taking bus mastering from a device that user space drives: pci_device_shutdown does
    so for kexec only. Until the reset that device reaches memory at the addresses that it was given for its domain.
    """
    told = []
    if not translates(data["at_end"]["unit"]):
        told.append("Linux had switched translation off before it")
    if _strayed(data):
        told.append("the device then wrote to memory at its own addresses, up to the reset")
    return "".join(f"; {each}" for each in told)


def _strayed(data: dict[str, Any]) -> bool:
    """Whether, before the reset, the device wrote to memory at the address that its domain maps to other memory."""
    return bool(data["before_end"]["pages"]["untranslated"] != data["at_end"]["pages"]["untranslated"])


def _unknown(evidence: StepEvidence, data: dict[str, Any]) -> Iterator[str]:
    """Find why nothing is known: no write was in flight, pages that were not read, a reboot that was half seen."""
    device = data["device"]
    if len(evidence.observations("rewritten")) < REWRITTEN or not data["issued"]["before"]["translated"]:
        yield f"'{device}' was not seen writing before the reset"
    if data["issued"]["before"]["own"] == 0:
        yield f"QEMU's '{device}' told of no write before the reset, so its silence afterwards says nothing"
    if (data["issued"]["before"]["own"] is None) != (data["issued"]["after"]["own"] is None):
        yield f"the writes that '{device}' told of were not counted both before and after the reset"
    if not goes_on(data["model"], data["at_end"]["device"], data["iova"]):
        yield f"no write of '{device}' was in flight when the machine was halted"
    if data["at_end"]["walk"] != data["mapped"]:
        yield f"the mapping of '{device}' was not alive when the machine was halted"
    if data["by"] != "kernel" and not translates(data["at_end"]["unit"]):
        yield "the unit did not translate any more when the machine was halted"
    if data["cause"] != _CAUSES[data["by"]]:
        yield f"QEMU tells another cause of the reset than was meant: {data['cause']}"
    if data["model"] == "edu" and goes_on("edu", data["after"]["device"], data["iova"]):
        yield f"'{device}' still has the DMA before it that it was told to issue before the reset"
    before, after = data["boot_ids"]
    if bool(_resets(evidence)) != (before != after):
        yield f"QEMU told of {len(_resets(evidence))} resets, and the guest's boot was {before}, then {after}"


def _unread(evidence: StepEvidence, data: dict[str, Any]) -> Iterator[str]:
    """Find pages that were not read from outside when they had to be, or not changed in between."""
    for moment, when in _MOMENTS.items():
        for page, place in zip(_PAGES, (data["mapped"], data["iova"]), strict=True):
            if _read(evidence, f"{page} {when}", place) != data[moment]["pages"][page]:
                yield f"the page at {place:#x} was not read {when}"
    for page in _PAGES:
        if data["planted"]["pages"][page] == data["at_end"]["pages"][page]:
            yield f"no fresh bytes were planted in the page '{page}' before the reset"


def _read(evidence: StepEvidence, label: str, place: int) -> str | None:
    """Give the digest of what was read from outside."""
    for entry in evidence.entries:
        if entry.source == "memory" and entry.data["label"] == label and entry.data["gpa"] == place:
            return str(entry.data["sha256"])
    return None


def _resets(evidence: StepEvidence) -> list[Entry]:
    """Give QEMU's events that tell of a reset."""
    return [e for e in evidence.entries if (e.source, e.kind, e.data.get("name")) == ("qmp", "event", "RESET")]


def _boot(evidence: StepEvidence, seen: Entry) -> Witness:
    (before, after), log = seen.data["boot_ids"], seen.data["log"]
    resets = _resets(evidence)
    problems = []
    reasons = [str(entry.data["event"]["data"]["reason"]) for entry in resets]
    if tuple(reasons) not in _RESETS:
        problems.append(f"QEMU told of these resets: {', '.join(reasons) or 'none'}")
    if seen.data["kernels"] != 1:
        problems.append(f"the console shows {seen.data['kernels']} kernels booting")
    if before == after:
        problems.append("the guest's boot is still the same")
    if log["first"] != 0 or not log["records"]:
        problems.append("the guest's log does not begin anew")
    return _witness(
        "boot",
        evidence.index,
        problems,
        f"a reset, boot {after[:8]} after {before[:8]}, and a log from its first record",
        seen.ref,
        *(entry.ref for entry in resets),
    )


def _unit(index: int, seen: Entry) -> Witness:
    at_reset, after = seen.data["at_reset"]["unit"], seen.data["after"]["unit"]
    problems = [
        f"{name.upper()} is {at_reset[name]:#x} after the reset, not {value:#x}"
        for name, value in AFTER_RESET.items()
        if at_reset[name] != value
    ]
    if not works(after):
        problems.append(f"the unit does not work after the boot: GSTS {after['gsts']:#x}, FSTS {after['fsts']:#x}")
    was = seen.data["at_end"]["unit"]["gsts"]
    return _witness("unit", index, problems, f"GSTS {was:#x}, 0x0 after the reset, then {after['gsts']:#x}", seen.ref)


def _bytes(index: int, seen: Entry, *, strays: bool) -> Witness:
    data = seen.data
    problems = []
    if translates(data["at_end"]["unit"]) and _strayed(data):
        problems.append(f"the page at {data['iova']:#x} changed although the unit translated")
    for moment in ("at_reset", "after"):
        for page in _PAGES:
            through = strays and (moment, page) == ("after", "untranslated")
            expected = data["planted"]["strayed"] if through else data["planted"]["pages"][page]
            if data[moment]["pages"][page] != expected:
                place = data["mapped"] if page == "mapped" else data["iova"]
                what = "what the device had before it to write" if through else "what was planted there"
                problems.append(f"the page at {place:#x} ({page}) does not hold {_MOMENTS[moment]} {what}")
    fine = "both pages still hold, after the boot, what was planted while the machine was halted"
    if strays:
        fine = f"the page at {data['iova']:#x} holds what the device had before it to write; the other did not change"
    return _witness("bytes", index, problems, fine, seen.ref)


def _translation(index: int, seen: Entry) -> Witness:
    before, after = seen.data["issued"]["before"], seen.data["issued"]["after"]
    problems = [f"{after['translated']} DMAs were translated after the reset"] if after["translated"] else []
    problems += [f"the device wrote {after['own']} times after the reset"] if after["own"] else []
    return _witness("translation", index, problems, f"{before['translated']} before the reset, none after it", seen.ref)


def _console(evidence: StepEvidence) -> Witness:
    """The serial console also has what the old kernel said after its log was read for the last time."""
    problems = [f"the console tells of a fault: {fault}" for fault in evidence.on_console]
    refs = tuple(fault.ref for fault in evidence.on_console[:3])
    return _witness("console", evidence.index, problems, "no fault, in neither boot", *refs)


def _witness(name: str, index: int, problems: list[str], fine: str, *refs: str) -> Witness:
    verdict = WitnessVerdict.DENIES if problems else WitnessVerdict.CONFIRMS
    return Witness(name=name, step=index, verdict=verdict, evidence="; ".join(problems) or fine, refs=refs)
