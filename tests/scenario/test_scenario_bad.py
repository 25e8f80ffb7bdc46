"""Every wrong scenario beside its exact diagnostics, with the real steps and devices.

`UPDATE_SNAPSHOTS=1 pytest tests/scenario` rewrites the snapshots; read the diff.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import harness.catalog  # noqa: F401  # registers steps and devices
from harness.scenario.load import load, load_all
from harness.source.diagnostics import InputError

BAD = Path(__file__).parent / "bad"
FILES = sorted(path.name for path in BAD.glob("*.yaml"))


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.chdir(BAD)


@pytest.mark.parametrize("name", FILES)
def test_diagnostics_are_exactly_these(name):
    with pytest.raises(InputError) as caught:
        load(Path(name))
    expected = Path(name).with_suffix(".expected")
    if os.environ.get("UPDATE_SNAPSHOTS"):
        expected.write_text(f"{caught.value}\n", encoding="utf-8")
    assert f"{caught.value}\n" == expected.read_text(encoding="utf-8")
    assert caught.value.exit_code == 2


def test_there_are_at_least_ten_and_no_stale_snapshot():
    assert len(FILES) >= 10
    assert sorted(path.with_suffix(".yaml").name for path in BAD.glob("*.expected")) == FILES


def test_all_files_are_told_of_at_once():
    with pytest.raises(InputError) as caught:
        load_all(map(Path, FILES))
    assert {diagnostic.path for diagnostic in caught.value.diagnostics} == set(FILES)
    assert str(caught.value).splitlines()[-1].endswith(f"errors in {len(FILES)} files")


def test_diagnostics_are_sorted_by_place():
    with pytest.raises(InputError) as caught:
        load(Path("wrong-types.yaml"))
    places = [(found.line, found.column) for found in caught.value.diagnostics]
    assert places == sorted(places)
    assert len(places) > 15
