from __future__ import annotations

import pytest

from harness.equipment import HostFacts, open_host


@pytest.fixture(scope="session")
def host() -> HostFacts:
    return open_host(print)
