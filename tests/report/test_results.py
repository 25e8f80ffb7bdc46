from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from example_run import Writer

from harness.errors import HarnessError
from harness.report.results import as_json, collect, from_json, host_facts, read_results, write_results
from harness.report.write import write_reports
from harness.result import summarise
from harness.verdict import CounterProof, Outcome, Witness, WitnessVerdict

DOCUMENT = Path(__file__).parents[2] / "docs" / "results.md"


def test_an_entry_has_exactly_the_documented_keys(troubled):
    entries, _, _ = DOCUMENT.read_text().partition("\n## atlas.json")
    documented = {line.split("`")[1] for line in entries.splitlines() if line.startswith("| `")}
    host_keys = {name for name in documented if name.startswith("host.")}
    for result in troubled[1]:
        assert set(as_json(result)) == documented - host_keys


def test_the_documented_host_keys_are_those_written(troubled):
    documented = {
        line.split("`")[1].removeprefix("host.")
        for line in DOCUMENT.read_text().splitlines()
        if line.startswith("| `host.")
    }
    assert set(host_facts(troubled[0])) == documented


def test_types_of_every_entry_are_those_of_the_contract(troubled):
    run, _ = troubled
    write_reports(run)
    document = json.loads((run.path / "results.json").read_text())
    assert document["schema"] == 1
    assert set(document) == {"schema", "host", "results"}
    for entry in document["results"]:
        assert entry["outcome"] in ("pass", "fail", "error", "skip")
        assert entry["start"] in ("cold", "template")
        assert isinstance(entry["duration_s"], float)
        assert (run.path / entry["evidence"]).is_dir()
        for witness in entry["witnesses"].values():
            assert set(witness) == {"verdict", "evidence"}
            assert witness["verdict"] in ("confirms", "denies", "missing")
        assert set(entry["counter_proofs"].values()) <= {"red", "vacuous", "not-run"}


def test_results_read_back_are_the_results_written(troubled):
    run, results = troubled
    _, read = read_results(write_results(run, {}, results))
    assert [as_json(result) for result in read] == [as_json(result) for result in results]


def test_another_schema_is_refused(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"schema": 2, "host": {}, "results": []}')
    with pytest.raises(HarnessError, match="schema 2"):
        read_results(path)


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 1}', '{"schema": 1, "host": {}, "results": [{}]}'])
def test_a_damaged_file_is_told(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(HarnessError, match="not a results file"):
        read_results(path)


def test_a_variant_without_a_result_is_an_error_that_names_the_step(troubled):
    run, results = troubled
    Writer(run, "cut-off", "Cut off", cut_at=3, finished=False, proofs={"iommu_off": CounterProof.NOT_RUN}).write()
    found = {result.id: result for result in collect(run)}
    assert len(found) == len(results) + 1
    assert found["cut-off"].outcome is Outcome.ERROR
    assert "step 4 (plant the canary" in found["cut-off"].reason
    assert found["cut-off"].counter_proofs == {"iommu_off": CounterProof.NOT_RUN}


def test_a_damaged_result_of_a_variant_is_an_error(good):
    run, _ = good
    (run.path / "cross-device-denial/default/result.json").write_text('{"outcome": "pass"}')
    assert {result.id: result.outcome for result in collect(run)}["cross-device-denial"] is Outcome.ERROR


def test_collecting_gives_what_the_runs_gave(troubled):
    run, results = troubled
    assert sorted(map(str, map(as_json, collect(run)))) == sorted(map(str, map(as_json, results)))


def test_reports_are_the_same_when_the_run_has_moved(good, tmp_path):
    run, _ = good
    write_reports(run)
    before = (run.path / "results.json").read_bytes()
    moved = shutil.move(run.path, tmp_path / "elsewhere")
    write_reports(type(run)(Path(moved)))
    assert (Path(moved) / "results.json").read_bytes() == before


def test_entry_of_a_variant_knows_its_scenario(troubled):
    entry = next(as_json(result) for result in troubled[1] if result.variant)
    assert from_json(entry).scenario == "truth-table"


def test_the_least_favourable_witness_of_a_name_decides():
    say = lambda step, verdict: Witness(name="bytes", step=step, verdict=verdict, evidence=f"{verdict}")  # noqa: E731
    said = [say(1, WitnessVerdict.CONFIRMS), say(2, WitnessVerdict.DENIES), say(3, WitnessVerdict.MISSING)]
    assert summarise(said)["bytes"].verdict is WitnessVerdict.DENIES
    assert summarise([said[0], said[2]])["bytes"].verdict is WitnessVerdict.MISSING
    assert summarise(said[:1])["bytes"].evidence == "confirms"
