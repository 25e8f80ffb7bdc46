"""A booted guest that floods its console is ended, and told by the channel that it flooded."""

from __future__ import annotations

import pytest

from harness import bounds
from harness.errors import BoundExceeded

pytestmark = pytest.mark.guest

FLOOD = "line=$(head -c 4000 /dev/zero | tr '\\0' x); while :; do echo $line; done >/dev/ttyS0"


def test_a_console_that_grows_without_end_is_no_witness(restored, monkeypatch):
    monkeypatch.setattr(bounds, "QEMU_FILE_BYTES", 204_800)
    with restored() as guest:
        with pytest.raises(BoundExceeded, match=r"said more than 204,800 bytes.*console\.log"):
            guest.run(["sh", "-c", FLOOD], timeout_s=60)
        console = guest.machine.console.path
        assert console.stat().st_size <= 204_800
    assert guest.machine.process.poll() is not None
