from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from harness import cli
from harness.bench import running
from harness.bench.figures import KEYS, NAMES, Figure
from harness.cli import measure
from harness.errors import InfraError
from harness.evidence import RunDirectory

HOST = SimpleNamespace(describe=lambda: {"qemu": "10.0.2", "accelerator": "tcg"})


def number(name):
    return dict.fromkeys(KEYS[name], 1.0) if name in KEYS else 1.0


def parts(**changed):
    return {name: changed.get(name, lambda _, name=name: Figure(value=number(name))) for name in NAMES}


def broken(setting):
    raise InfraError("QEMU ended")


def interrupted(setting):
    raise KeyboardInterrupt


def measured(tmp_path, *, only=(), quick=False, **changed):
    run = RunDirectory.create(tmp_path)
    told = []
    try:
        running.measure(run, HOST, only=only, quick=quick, scenarios=[], note=told.append, parts=parts(**changed))
    finally:
        contents = json.loads((run.path / "bench.json").read_text())
        assert sorted(path.name for path in run.path.iterdir()) == ["bench.html", "bench.json", "bench.svg"]
        measured.last = contents
    return contents, told


def test_a_part_that_fails_leaves_its_reason_and_the_others_are_measured(tmp_path):
    contents, told = measured(tmp_path, overhead=broken)
    assert contents["overhead"] is None
    assert contents["missing"] == {"overhead": "QEMU ended"}
    assert all(contents[name] == number(name) for name in NAMES if name != "overhead")
    assert any(line.startswith("overhead: QEMU ended") for line in told)


def test_only_some_are_measured(tmp_path):
    contents, _ = measured(tmp_path, only=["overhead"], quick=True, template_speedup=broken)
    assert contents["overhead"] == 1.0
    assert contents["missing"]["template_speedup"] == "not asked for"
    assert contents["quick"] is True


def test_what_was_measured_before_an_interrupt_is_kept(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, overhead=interrupted)
    assert measured.last["template_speedup"] == 1.0
    assert measured.last["overhead"] is None


@pytest.mark.parametrize(("changed", "status"), [({}, 0), ({"overhead": broken}, 3)])
def test_the_exit_status_tells_whether_every_figure_could_be_had(tmp_path, monkeypatch, capsys, changed, status):
    def measure_these(*args, **kwargs):
        return running_measure(*args, **kwargs, parts=parts(**changed))

    running_measure = running.measure
    monkeypatch.setattr(running, "measure", measure_these)
    monkeypatch.setattr(measure.runner, "open_host", lambda _, **__: HOST)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench"]) == status
    assert "template_speedup" in capsys.readouterr().out


def test_an_unknown_figure_is_wrong_input(capsys):
    assert cli.main(["bench", "--only", "overhaed"]) == 2
    assert "overhead" in capsys.readouterr().err
