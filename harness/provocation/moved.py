"""What a DMA moved, by the bytes at every place it could have reached; no byte is believed that was not read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from harness.evidence import Entry
from harness.judgement import StepEvidence
from harness.leakage import leaks
from harness.provocation.phases import Phase, Untold
from harness.verdict import Witness, WitnessVerdict
from harness.vtd.faults import Access

#: The place that the tables map the address to; all others must never be reached.
TARGET = "mapped"

#: That page, and at least one that nothing maps.
_PLACES = 2


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of the bytes of one DMA.

    `whole` tells that they all arrived where the tables lead, `partly` that some did, `elsewhere` names the places that
    the DMA reached although no table leads there.
    """

    whole: bool
    partly: bool
    elsewhere: tuple[str, ...]
    write: bool
    ref: str

    @classmethod
    def of(cls, phase: Phase) -> Moved:
        """Work it out from the observation `bytes` of `phase`; Untold if bytes are missing or were never read."""
        seen = phase.observation("bytes")
        places = {str(place["name"]): place for place in seen.data["places"]}
        if TARGET not in places:
            raise Untold(f"{seen.ref}: nobody looked at the page that the tables map")
        if len(places) < _PLACES:
            raise Untold(f"{seen.ref}: nobody looked at any other place than the page that the tables map")
        if Access(seen.data["access"]) is Access.WRITE:
            return cls._written(phase, seen, places)
        return cls._read(phase, seen, places)

    @classmethod
    def _written(cls, phase: Phase, seen: Entry, places: dict[str, Any]) -> Moved:
        payload = bytes.fromhex(seen.data["payload"])
        changed: dict[str, bytes] = {}
        for name, place in places.items():
            before, after = bytes.fromhex(place["before"]), bytes.fromhex(place["after"])
            if before == payload:
                raise Untold(f"{seen.ref}: the payload stood in '{name}' before")
            for found in {before, after}:
                _demand_reading(phase, int(place["gpa"]), found, name, times=2 if before == after else 1)
            if before != after:
                changed[name] = after
        whole = changed.get(TARGET) == payload
        elsewhere = tuple(name for name in changed if name != TARGET)
        return cls(whole, TARGET in changed and not whole, elsewhere, write=True, ref=seen.ref)

    @classmethod
    def _read(cls, phase: Phase, seen: Entry, places: dict[str, Any]) -> Moved:
        out = _came_out(phase, seen)
        secrets = {name: bytes.fromhex(place["before"]) for name, place in places.items()}
        for name, secret in secrets.items():
            _demand_reading(phase, int(places[name]["gpa"]), secret, name)
        elsewhere = tuple(name for name, secret in secrets.items() if name != TARGET and leaks(out, secret))
        whole = out == secrets[TARGET]
        return cls(whole, leaks(out, secrets[TARGET]) and not whole, elsewhere, write=False, ref=seen.ref)

    @property
    def nothing(self) -> bool:
        """Whether not a byte moved."""
        return not (self.whole or self.partly or self.elsewhere)

    def __str__(self) -> str:
        if self.elsewhere:
            where = " and ".join(f"'{name}'" for name in self.elsewhere)
            return f"the payload got to {where}" if self.write else f"the device holds what stands in {where}"
        if self.whole:
            return "the payload stands in the mapped page" if self.write else "the device holds the mapped page"
        if self.partly:
            return "the mapped page changed in part" if self.write else "the device holds part of the mapped page"
        return "no place changed" if self.write else "the device holds none of the secrets"

    def witness(self, evidence: StepEvidence, *, may_land: bool, may_refuse: bool) -> Witness:
        """Give the witness `bytes`, held against what may become of them."""
        fits = may_refuse if self.nothing else may_land and self.whole and not self.elsewhere
        verdict = WitnessVerdict.CONFIRMS if fits else WitnessVerdict.DENIES
        return Witness(name="bytes", step=evidence.index, verdict=verdict, evidence=str(self), refs=(self.ref,))


def _came_out(phase: Phase, seen: Entry) -> bytes:
    """Give what the device has read: as it was read from memory, as its wire showed it, or nothing on a silent wire."""
    told = seen.data["came_out"]
    frames = [str(entry.data["data"]) for entry in phase.of("wire", "frame")]
    if told is None:
        if frames or not phase.of("wire", "silent"):
            raise Untold(f"{seen.ref}: nothing came out of the device, but {frames or 'nobody looked'}")
        return b""
    out = bytes.fromhex(told)
    if not any(frame.startswith(told) for frame in frames):
        _demand_reading_elsewhere(phase, {int(place["gpa"]) for place in seen.data["places"]}, out)
    return out


def _demand_reading_elsewhere(phase: Phase, places: set[int], out: bytes) -> None:
    """Untold unless these bytes were read where the device put them, which is none of the places it read from."""
    digest = hashlib.sha256(out).hexdigest()
    readings = [entry.data for entry in phase.of("memory", "read") if entry.data["gpa"] not in places]
    if all(reading["sha256"] != digest for reading in readings):
        raise Untold(f"what the device holds in the phase '{phase.name}' is not what was read from outside")


def _demand_reading(phase: Phase, gpa: int, found: bytes, name: str, *, times: int = 1) -> None:
    """Untold unless these bytes were read from outside at `gpa` in this phase so many times."""
    digest = hashlib.sha256(found).hexdigest()
    readings = [entry.data for entry in phase.of("memory", "read") if gpa == entry.data["gpa"]]
    if sum(reading["sha256"] == digest for reading in readings) < times:
        raise Untold(f"the bytes of '{name}' in the phase '{phase.name}' are not those that were read from outside")
