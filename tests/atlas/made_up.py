"""Made-up provocations and runs for tests of the atlas."""

from __future__ import annotations

from dataclasses import asdict, replace

from harness.atlas.gathered import Gathered, Provocation
from harness.atlas.raisable import RAISABLE, TABLES
from harness.evidence import RunDirectory, VariantDirectory
from harness.verdict import Conformance, Provoked

VERSION = "10.0.13"

BLOCK = Provoked(
    step=0,
    table="legacy",
    levels=4,
    recipe="'rogue' writes 64 bytes with context.present=0",
    source="edu 01:00.0",
    access="write",
    spec="context-not-present",
    seen="context-not-present",
    fault_processing_disabled=False,
    conformance=Conformance.AS_SPEC,
    witnesses=("announcement", "register", "trace"),
)
KNOWN = replace(
    BLOCK, spec="sm-context-not-present", conformance=Conformance.KNOWN_DEVIATION, why="codes of legacy mode"
)
NEW = replace(BLOCK, seen="context-invalid", conformance=Conformance.NEW_DEVIATION)


def everything() -> list[Provoked]:
    """Each raisable reason in each mode it exists in."""
    return [
        replace(BLOCK, spec=reason.name, seen=reason.name, table=table)
        for reason in RAISABLE
        for table in TABLES[reason.code]
    ]


def gathered(*provoked: Provoked, images: tuple[str, ...] = (), versions: str = "", **changes) -> Gathered:
    images = images or ("bare",) * len(provoked)
    provocations = tuple(Provocation("atlas-x", *pair, versions) for pair in zip(images, provoked, strict=True))
    return replace(Gathered(VERSION, provocations, (), (), 2.0, {}), **changes)


def store(
    run: RunDirectory,
    name: str,
    *,
    kind: str = "bare",
    outcome: str | None = "pass",
    tags: tuple[str, ...] = ("atlas",),
    provoked: tuple[Provoked, ...] = (BLOCK,),
    expect: object = "blocked",
    source: tuple[str, bytes] = ("atlas-x.yaml", b"scenario: atlas-x\n"),
) -> VariantDirectory:
    """Write the files of one variant; without an outcome those of one that was cut off."""
    directory = run.variant(name, "")
    machine = {"kind": kind, "image": "debian-12"}
    definition = {"steps": [{"provoke": {"device": "rogue"}, "expect": expect}]}
    about = {"scenario": name, "variant": "", "source": f"scenarios/{source[0]}"}
    directory.write_json("plan.json", {**about, "tags": tags, "machine": machine, "definition": definition})
    directory.file("scenario.yaml").write_bytes(source[1])
    if outcome is not None:
        directory.write_json("result.json", {"id": name, "outcome": outcome, "reason": "because", "duration_s": 0.5})
        directory.write_json("verdict.json", {"provoked": [asdict(each) for each in provoked]})
    return directory
