from __future__ import annotations

import pytest
from example_run import make_run


@pytest.fixture
def troubled(tmp_path):
    return make_run(tmp_path / "runs")


@pytest.fixture
def good(tmp_path):
    return make_run(tmp_path / "runs", troubled=False)
