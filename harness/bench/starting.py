"""How long a start takes: restored from a template by the harness, beside booted by hand with plain QEMU."""

from __future__ import annotations

import shutil
import socket
import time
from pathlib import Path

from harness.bench import script
from harness.bench.figures import Figure, ratio
from harness.bench.restored import restored
from harness.bench.setting import Setting, interleaved
from harness.errors import InfraError
from harness.machine.argv import Channels, command_line, escaped
from harness.machine.launch import CONSOLE
from harness.machine.properties import resolve_all
from harness.machine.spec import MachineSpec
from harness.runner import HostFacts
from harness.ssh import KeyPair
from harness.waiting import timeout_scale

#: What the image's init says once its SSH server listens.
LISTENING = "vtd-guest: ready"

_LEARNT = "hostfwd=tcp:127.0.0.1:0-:22"


def template_speedup(setting: Setting) -> Figure:
    """Compare the two ways to a guest of the same machine.

    `cold_s`: from starting QEMU to the answer of the first SSH command. `template_s`: from asking for the template to
    the agent's first answer over SSH, where a scenario begins; `template_ssh_s`: to that of a command on the same.
    """
    host, spec, home = setting.host, setting.subject().machine, setting.directory("start")
    to_ssh: list[float] = []

    def from_template(number: int) -> float:
        begun = time.perf_counter()
        with restored(host, spec, home / f"template-{number}") as guest:
            agent_s = time.perf_counter() - begun
            if guest.run(["echo", "ready"]).stdout != b"ready\n":
                raise InfraError("the restored guest answered something else")
            to_ssh.append(time.perf_counter() - begun)
        return agent_s

    def cold(number: int) -> float:
        with host.guest_place():
            return boot_by_hand(host, spec, home / f"cold-{number}")

    from_template(-1)  # made and checked, as it is for all but the first scenario of a run
    to_ssh.clear()
    samples = interleaved(setting, {"cold_s": cold, "template_s": from_template})
    return Figure(value=ratio(samples["cold_s"], samples["template_s"]), samples={**samples, "template_ssh_s": to_ssh})


def boot_by_hand(host: HostFacts, spec: MachineSpec, directory: Path) -> float:
    """Boot the machine of `spec` with plain QEMU and paramiko; the seconds to the answer of the first SSH command."""
    directory.mkdir()
    server, client = KeyPair.generate(), KeyPair.generate()
    files = {
        "host_key": server.private,
        "client": client.private,
        "authorized_keys": client.public.encode() + b"\n",
    }
    for name, data in files.items():
        (directory / name).write_bytes(data)
        (directory / name).chmod(0o600)
    channels = Channels(
        monitor=(),
        serial=f"file,path={escaped(str(directory / CONSOLE))}",
        ssh=None,
        host_key=escaped(str(directory / "host_key")),
        authorized_keys=escaped(str(directory / "authorized_keys")),
        wires={name: f"hubport,hubid={number}" for number, name in enumerate(spec.wires)},
        start=True,
    )
    port = _free_port()
    iommus = resolve_all(spec.iommus, host.facts)
    argv = command_line(spec, iommus, channels, host.image(spec.image), host.qemu)
    order = {
        "argv": [word.replace(_LEARNT, f"hostfwd=tcp:127.0.0.1:{port}-:22") for word in argv],
        "environment": host.qemu.env,
        "console": str(directory / CONSOLE),
        "ready": LISTENING,
        "port": port,
        "client": str(directory / "client"),
        "host_key": server.public,
        # So that it gives up, and tells why, before it is ended.
        "within_s": script.SCRIPT_S * timeout_scale() * 0.9,
    }
    seconds = float(script.run("boot", directory, order))
    shutil.rmtree(directory)
    return seconds


def _free_port() -> int:
    """A port that nobody has; by hand one would choose it too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
