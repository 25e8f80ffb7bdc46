"""Start QEMU and wait for the first SSH command: `boot.py JSON`, prints the seconds.

JSON: argv, environment, console (file), ready (words on the console), port, client (file of the private key), host_key
(a line as in known_hosts, without the host), within_s.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import paramiko


def main(order: dict[str, Any]) -> float:
    """Boot the machine of `order`, end it, and give the seconds until a command was answered."""
    begun = time.perf_counter()
    qemu = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *order["argv"]],
        env={**os.environ, **order["environment"]},
        stdin=subprocess.DEVNULL,
    )
    try:
        _wait_for_console(order, begun, qemu)
        with _connected(order, begun, qemu) as client:
            _, stdout, _ = client.exec_command("echo ready")
            if stdout.read() != b"ready\n":
                raise RuntimeError("the guest answered something else")
        return time.perf_counter() - begun
    finally:
        qemu.kill()
        qemu.wait()


def _wait_for_console(order: dict[str, Any], begun: float, qemu: subprocess.Popen[bytes]) -> None:
    """Wait until the SSH server listens: a connection made before that hangs for seconds.

    The kernel may have written into the middle of the words, so they are not waited for beyond a quarter of the time.
    """
    console = Path(order["console"])
    while not (console.exists() and order["ready"] in console.read_text(errors="replace")):
        _require_running(qemu)
        if time.perf_counter() - begun > order["within_s"] / 4:
            return
        time.sleep(0.005)


def _connected(order: dict[str, Any], begun: float, qemu: subprocess.Popen[bytes]) -> paramiko.SSHClient:
    """A client of the guest's SSH server; a connection that came before the server is lost, and another is made."""
    kind, text = order["host_key"].split()[:2]
    key = paramiko.PKey.from_type_string(kind, base64.b64decode(text))
    while True:
        client = paramiko.SSHClient()
        client.get_host_keys().add(f"[127.0.0.1]:{order['port']}", kind, key)
        left_s = order["within_s"] - (time.perf_counter() - begun)
        try:
            client.connect(
                "127.0.0.1",
                order["port"],
                username="root",
                key_filename=order["client"],
                look_for_keys=False,
                allow_agent=False,
                timeout=left_s,
                banner_timeout=left_s,
                auth_timeout=left_s,
            )
        except (paramiko.SSHException, OSError, EOFError) as error:
            client.close()
            _require_running(qemu)
            refused = isinstance(error, paramiko.AuthenticationException | paramiko.BadHostKeyException)
            if refused or time.perf_counter() - begun > order["within_s"]:
                raise
            time.sleep(0.005)
        else:
            return client


def _require_running(qemu: subprocess.Popen[bytes]) -> None:
    if qemu.poll() is not None:
        raise RuntimeError(f"QEMU ended with status {qemu.returncode}")


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
