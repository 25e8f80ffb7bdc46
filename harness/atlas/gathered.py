"""What a run provoked: read back from the verdicts of its variants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.errors import HarnessError
from harness.evidence import RunDirectory, VariantDirectory
from harness.report.results import RUN
from harness.report.story import PLAN, VERDICT, read_json
from harness.result import RESULT
from harness.verdict import Conformance, Outcome, Provoked

#: The copy of its scenario file in a variant's directory.
SCENARIO = "scenario.yaml"

#: Tag of the scenarios that belong to the atlas.
TAG = "atlas"

_PROVOKED = TypeAdapter(tuple[Provoked, ...])


@dataclass(frozen=True, slots=True)
class Provocation:
    """One provoked fault and where it was: the variant's id, and its guest image (`bare` without a guest).

    `versions` are the QEMU versions that the scenario knows its deviation of, empty where it states no bounds.
    """

    variant: str
    image: str
    what: Provoked
    versions: str = ""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the atlas variants of one run provoked.

    `qemu` is its version. `unproven` are the variants that did not pass, with the reason. `bare_seconds` are the
    seconds of all bare variants together, from the start of QEMU to the verdict. `sources` are the scenario files they
    were made of, by name, as the run kept them.
    """

    qemu: str
    provocations: tuple[Provocation, ...]
    unproven: tuple[tuple[str, str], ...]
    skipped: tuple[tuple[str, str], ...]
    bare_seconds: float
    sources: Mapping[str, bytes]

    @property
    def bare(self) -> tuple[Provocation, ...]:
        """Those on machines without a guest."""
        return tuple(each for each in self.provocations if each.image == "bare")

    def count(self, conformance: Conformance) -> int:
        """How many were of this conformance."""
        return sum(each.what.conformance is conformance for each in self.provocations)

    @property
    def bare_faults_per_second(self) -> float:
        """Provoked and judged faults of bare machines for each second of the processes that ran them."""
        return len(self.bare) / self.bare_seconds if self.bare_seconds else 0.0


def gather(run: RunDirectory) -> Gathered:
    """Read the atlas variants of `run`; HarnessError if it has none, or if a file of it cannot be read."""
    provocations: list[Provocation] = []
    unproven: list[tuple[str, str]] = []
    skipped: list[tuple[str, str]] = []
    seconds = 0.0
    sources: dict[str, bytes] = {}
    found = list(_variants(run))
    if not found:
        raise HarnessError(f"{run.path} holds no scenario tagged '{TAG}'", hint="make it with `harness atlas`")
    for directory, plan in found:
        _keep_source(sources, directory, plan)
        result = read_json(directory.file(RESULT))
        if not result:
            unproven.append((f"{plan['scenario']}[{plan['variant']}]", f"it left no {RESULT}: the run was cut off"))
            continue
        bare = plan["machine"]["kind"] == "bare"
        name = str(result["id"])
        if result["outcome"] == Outcome.SKIP:
            skipped.append((name, str(result["reason"])))
        elif result["outcome"] != Outcome.PASS:
            unproven.append((name, str(result["reason"])))
        seconds += float(result["duration_s"]) if bare else 0.0
        image = "bare" if bare else str(plan["machine"]["image"])
        provocations += [Provocation(name, image, what, _versions(plan, what)) for what in provoked_in(directory)]
    host = read_json(run.path / RUN)["host"]
    return Gathered(str(host["qemu"]), tuple(provocations), tuple(unproven), tuple(skipped), seconds, sources)


def _variants(run: RunDirectory) -> Iterator[tuple[VariantDirectory, dict[str, Any]]]:
    for directory in run.variants():
        plan = read_json(directory.file(PLAN))
        if TAG in plan.get("tags", ()):
            yield directory, plan


def _keep_source(sources: dict[str, bytes], directory: VariantDirectory, plan: Mapping[str, Any]) -> None:
    """Keep the scenario file of a variant; nothing of it where two variants were made of different ones."""
    copy = directory.file(SCENARIO)
    text = copy.read_bytes() if copy.exists() else b""
    name = Path(str(plan.get("source", ""))).name
    if sources.setdefault(name, text) != text:
        sources[name] = b""


def _versions(plan: Mapping[str, Any], what: Provoked) -> str:
    """Give the bounds of a known deviation in words, from the step of the scenario that states it."""
    if what.conformance is not Conformance.KNOWN_DEVIATION:
        return ""
    steps = plan.get("definition", {}).get("steps", [])
    stated = _stating(steps[what.step] if what.step < len(steps) else None, what.why) or {}
    until = stated.get("until") or []
    until = ", ".join(until) if isinstance(until, list) else str(until)
    bounds = [f"since {stated['since']}" if stated.get("since") else "", f"until {until}" if until else ""]
    return " ".join(filter(None, bounds))


def _stating(written: Any, why: str) -> Mapping[str, Any] | None:
    """Find the mapping in a step that gives this cause."""
    if isinstance(written, dict) and written.get("why") == why:
        return written
    parts = written.values() if isinstance(written, dict) else written if isinstance(written, list) else ()
    return next((found for part in parts if (found := _stating(part, why)) is not None), None)


def provoked_in(directory: VariantDirectory) -> Sequence[Provoked]:
    """Give what the verdict of a variant says was provoked; HarnessError if it cannot be read."""
    path = directory.file(VERDICT)
    try:
        return _PROVOKED.validate_python(_tuples(read_json(path).get("provoked", [])))
    except ValidationError as error:
        raise HarnessError(f"{path} holds no provoked faults that can be read: {error}") from None


def _tuples(value: Any) -> Any:
    return [{**entry, "witnesses": tuple(entry.get("witnesses", ()))} for entry in value]
