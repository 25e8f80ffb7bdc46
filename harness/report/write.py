"""All reports of a run, made from its files; they can be made again at any time, without QEMU."""

from __future__ import annotations

from harness.evidence import RunDirectory
from harness.report.html import INDEX, write_html
from harness.report.junit import JUNIT, write_junit
from harness.report.manifest import MANIFEST, refresh, write_manifest
from harness.report.results import RESULTS, collect, host_facts, write_results
from harness.result import Result


def write_reports(run: RunDirectory) -> list[Result]:
    """Write results.json, junit.xml, index.html and, the first time, the manifest; give the results.

    Later on the manifest keeps the digests of the evidence as they first were and takes over only the reports'.
    """
    results, host = collect(run), host_facts(run)
    write_results(run, host, results)
    write_junit(run, host, results)
    write_html(run, host, results)
    if (run.path / MANIFEST).exists():
        refresh(run, (RESULTS, JUNIT, INDEX))
    else:
        write_manifest(run, host)
    return results
