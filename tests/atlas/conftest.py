from __future__ import annotations

import json

import pytest

from harness.evidence import RunDirectory
from tests.atlas.made_up import VERSION


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    made = RunDirectory(tmp_path / "run")
    made.path.mkdir()
    (made.path / "run.json").write_text(json.dumps({"host": {"qemu": VERSION}}))
    return made
