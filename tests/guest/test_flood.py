"""A booted guest whose root floods its console: the call at hand ends with the bound, and the machine with it."""

from __future__ import annotations

import pytest

from harness import bounds
from harness.errors import BoundExceeded
from harness.guest import Guest

pytestmark = [pytest.mark.guest, pytest.mark.parametrize("guest_image", ["debian-13"], indirect=True)]

FLOODS = {
    "its serial port": "while :; do cat /proc/kallsyms; done > /dev/ttyS0",
    "its kernel's log": "echo 8 > /proc/sys/kernel/printk; while :; do echo '<0>flood flood flood' > /dev/kmsg; done",
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_guest_that_floods_its_console_is_told_and_ended(flood, restored_machine, monkeypatch) -> None:
    with restored_machine() as machine, Guest.boot(machine) as guest:
        console = machine.console.path
        bound = (console.stat().st_size + (256 << 10)) & ~511
        monkeypatch.setattr(bounds, "QEMU_FILE_BYTES", bound)
        with pytest.raises(
            BoundExceeded, match=r"bytes in its file on its console\.log; the machine is ended"
        ) as caught:
            guest.run(["sh", "-c", FLOODS[flood]], timeout_s=120.0)
    assert (caught.value.channel, caught.value.bound) == ("console.log", bound)
    assert caught.value.evidence == console
    assert machine.process.poll() is not None
