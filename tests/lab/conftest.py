from __future__ import annotations

import pytest

from tests.lab.fake_host import NIC, FakeHost
from tests.pipes import PipeSsh


@pytest.fixture
def ssh():
    made = PipeSsh()
    yield made
    made.close()


@pytest.fixture
def lab(tmp_path):
    """A host with one NIC, which e1000e drives."""
    host = FakeHost(tmp_path / "host")
    host.device(NIC, driver="e1000e")
    with host:
        yield host
