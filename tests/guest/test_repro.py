"""The script of a run directory really boots the machine by hand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from harness.machine.spec import IommuSpec, MachineSpec
from harness.waiting import Deadline, wait_for

pytestmark = pytest.mark.guest


def test_the_script_boots_the_same_machine_and_cleans_up(start_machine, guest_image, tmp_path) -> None:
    spec = MachineSpec(
        image="", kernel_args=("intel_iommu=on",), iommus=(IommuSpec({"caching_mode": True}),), wires=("lan",)
    )
    with start_machine(spec, guest_image):
        pass
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    person = subprocess.Popen(
        [str(tmp_path / "variant" / "repro.sh")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    assert person.stdin
    assert person.stdout
    said = bytearray()
    reader = threading.Thread(target=lambda: [said.extend(line) for line in person.stdout])
    reader.start()

    def saw(pattern: bytes) -> re.Match[bytes]:
        return wait_for(
            repr(pattern),
            lambda: re.search(pattern, said),
            Deadline.after(60),
            observed=lambda: bytes(said[-2000:]).decode(errors="replace"),
        )

    try:
        # Where there is no ssh-keygen, the script says so and the guest is reached by its console alone.
        saw(rb"vtd-guest: ready" if shutil.which("ssh-keygen") else rb"no ssh-keygen here")
        saw(rb"DMAR: IOMMU enabled")
        person.stdin.write(b"\x01cinfo usernet\n")
        person.stdin.flush()
        port = saw(rb"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)")[1].decode()
        (keys,) = scratch.iterdir()
        if shutil.which("ssh") and shutil.which("ssh-keygen"):
            assert _ssh(keys, port).stdout == "6"
        person.stdin.write(b"quit\n")
        person.stdin.flush()
        assert person.wait(timeout=10) == 0
    finally:
        person.kill()
        person.wait()
        reader.join()
        person.stdin.close()
        person.stdout.close()
    assert list(scratch.iterdir()) == []


def _ssh(keys: Path, port: str) -> subprocess.CompletedProcess[str]:
    pinned = keys / "known_hosts"
    pinned.write_text(f"[127.0.0.1]:{port} {(keys / 'host_key.pub').read_text()}")
    options = ["-o", f"UserKnownHostsFile={pinned}", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20"]
    command = ["root@127.0.0.1", "uname -r | head -c1"]
    return subprocess.run(
        ["ssh", "-F", "/dev/null", "-i", str(keys / "client"), *options, "-p", port, *command],
        capture_output=True,
        text=True,
        check=False,
    )
