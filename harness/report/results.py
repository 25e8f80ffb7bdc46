"""`results.json`, the versioned contract for other programs; documented in docs/results.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.evidence import RunDirectory, VariantDirectory, write_json
from harness.report.story import read_json, tell
from harness.result import RESULT, Result, WitnessSummary
from harness.verdict import CounterProof, Outcome, WitnessVerdict

SCHEMA = 1
RESULTS, RUN = "results.json", "run.json"
#: In each variant's directory: what it booted.
IMAGE = "image.json"


def write_results(run: RunDirectory, host: Mapping[str, Any], results: Sequence[Result]) -> Path:
    """Write `results.json` of `run`."""
    document = {"schema": SCHEMA, "host": dict(host), "results": [as_json(result) for result in results]}
    return write_json(run.path / RESULTS, document)


def read_results(path: Path) -> tuple[dict[str, Any], list[Result]]:
    """Give host and results of a `results.json`; HarnessError for another schema or a damaged file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise HarnessError(f"{path}: schema {document['schema']}, this program knows {SCHEMA}")
        return document["host"], [from_json(entry) for entry in document["results"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HarnessError(f"{path} is not a results file: {error!r}") from error


def as_json(result: Result) -> dict[str, Any]:
    """Give one entry of `results`."""
    return {
        "id": result.id,
        "variant": result.variant,
        "title": result.title,
        "tags": list(result.tags),
        "outcome": result.outcome.value,
        "reason": result.reason,
        "duration_s": round(result.duration_s, 3),
        "start": result.start,
        "witnesses": {
            name: {"verdict": witness.verdict.value, "evidence": witness.evidence}
            for name, witness in result.witnesses.items()
        },
        "counter_proofs": {name: proof.value for name, proof in result.counter_proofs.items()},
        "evidence": result.evidence,
    }


def from_json(entry: Mapping[str, Any]) -> Result:
    """Read one entry of `results` back; ValueError, KeyError or TypeError where it is damaged."""
    return Result(
        id=entry["id"],
        scenario=entry["id"].partition("[")[0],
        variant=entry["variant"],
        title=entry["title"],
        tags=tuple(entry["tags"]),
        outcome=Outcome(entry["outcome"]),
        reason=entry["reason"],
        duration_s=float(entry["duration_s"]),
        start=entry["start"],
        witnesses={
            name: WitnessSummary(verdict=WitnessVerdict(witness["verdict"]), evidence=witness["evidence"])
            for name, witness in entry["witnesses"].items()
        },
        counter_proofs={name: CounterProof(proof) for name, proof in entry["counter_proofs"].items()},
        evidence=entry["evidence"],
    )


def store(directory: VariantDirectory, result: Result) -> None:
    """Keep the result of one variant in its own directory."""
    directory.write_json(RESULT, as_json(result))


def collect(run: RunDirectory) -> list[Result]:
    """Give the results of all variants of `run`, in the order they ended; one without a result is an ERROR."""
    found: list[tuple[float, Result]] = []
    for directory in run.variants():
        path = directory.file(RESULT)
        entry = read_json(path)
        try:
            found.append((path.stat().st_mtime, from_json(entry)))
        except (OSError, ValueError, KeyError, TypeError):
            found.append((float("inf"), _unfinished(run, directory)))
    return [result for _, result in sorted(found, key=lambda each: (each[0], each[1].id))]


def run_facts(run: RunDirectory) -> dict[str, Any]:
    """Give the contents of `run.json`; empty if it is not there or damaged."""
    return read_json(run.path / RUN)


def host_facts(run: RunDirectory) -> dict[str, Any]:
    """Give the description of the host in `run.json`, with the images that its variants booted."""
    host = run_facts(run).get("host", {})
    booted = [read_json(directory.file(IMAGE)) for directory in run.variants()]
    images = {str(image["name"]): image for image in booted if "name" in image}
    return {**(host if isinstance(host, dict) else {}), "images": dict(sorted(images.items()))}


def _unfinished(run: RunDirectory, directory: VariantDirectory) -> Result:
    story = tell(directory)
    begun = [step for step in story.steps if step.began]
    last = f"; it had come to step {begun[-1].number} ({begun[-1].text})" if begun else "; no step had begun"
    times = [entry.t for entry in story.entries]
    return Result(
        id=story.id,
        scenario=story.scenario,
        variant=story.variant,
        title=story.title,
        tags=story.tags,
        outcome=Outcome.ERROR,
        reason=f"the run ended before this variant had a result{last}",
        duration_s=max(times) - min(times) if times else 0.0,
        start=story.start,
        counter_proofs=dict.fromkeys(story.planned_counter_proofs, CounterProof.NOT_RUN),
        evidence=str(directory.path.relative_to(run.path)),
    )
