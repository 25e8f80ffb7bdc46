"""The guest's own init, on the serial console of a machine that has neither keys nor a network."""

from __future__ import annotations

import os
import subprocess

import pytest

from harness.waiting import Deadline, wait_for


@pytest.mark.guest
def test_init_loads_the_drivers_and_says_that_keys_are_missing(guest_image, qemu_build, tmp_path):
    console = tmp_path / "console"
    argv = [
        *("setpriv", "--pdeathsig", "KILL", "--", *qemu_build.argv_prefix),
        *("-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-serial", f"file:{console}", "-nic", "user,model=virtio-net-pci,restrict=on"),
        *("-kernel", str(guest_image.kernel), "-initrd", str(guest_image.initrd)),
        *("-append", "console=ttyS0 cryptomgr.notests"),
    ]

    def text() -> str:
        return console.read_text(errors="replace") if console.exists() else ""

    def tail() -> str:
        return "\n".join(text().splitlines()[-15:])

    with subprocess.Popen(argv, env={**os.environ, **qemu_build.env}) as qemu:
        try:
            wait_for("init's last word", lambda: "press Enter" in text(), Deadline.after(60), observed=tail)
        finally:
            qemu.kill()
    assert f"Linux version {guest_image.kernel_release} " in text()
    assert "vtd-guest: no keys in fw_cfg opt/vtd/host_key and opt/vtd/authorized_keys, so no SSH server" in text()
    for driver in ("igbvf: ", "igb: ", "e1000e: ", "VFIO - User Level"):
        assert driver in text()
    assert "modprobe:" not in text()
