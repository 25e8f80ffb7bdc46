"""The script with which a person boots the same machine by hand."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from harness.machine.argv import Channels, command_line
from harness.machine.parts import BootImage, QemuBinary
from harness.machine.spec import MachineSpec

#: What stands in the argv where the script's own directory of keys belongs.
_KEYS = "@KEYS@"

_SCRIPT = """\
#!/bin/sh
# Boots the machine of this directory by hand: the guest's serial console is this terminal, Ctrl-a c switches to QEMU's
# monitor and back, Ctrl-a x ends QEMU. Its SSH keys are made for this run only and go with it.
set -eu
keys=$(mktemp -d)
trap 'rm -rf "$keys"' EXIT INT TERM
if command -v ssh-keygen >/dev/null; then
    ssh-keygen -q -t ed25519 -N '' -C vtd -f "$keys/host_key"
    ssh-keygen -q -t ed25519 -N '' -C vtd -f "$keys/client"
    cp "$keys/client.pub" "$keys/authorized_keys"
    echo "ssh: 'info usernet' at the monitor tells the PORT; then"
    echo "     ssh -i $keys/client -o UserKnownHostsFile=$keys/known_hosts -p PORT root@127.0.0.1"
else
    echo "no ssh-keygen here: the guest boots without an SSH server" >&2
    : >"$keys/host_key"
    : >"$keys/authorized_keys"
fi
{environment}{command}
"""


def script(
    spec: MachineSpec, iommus: Sequence[Mapping[str, Any]], image: BootImage, qemu: QemuBinary, wires: Sequence[str]
) -> str:
    """A POSIX shell script; the wires end in hubs of their own, since nobody listens at their other ends."""
    channels = Channels(
        monitor=("-mon", "chardev=serial,mode=readline"),
        serial="stdio,mux=on,signal=off",
        ssh=None,
        host_key=f"{_KEYS}/host_key",
        authorized_keys=f"{_KEYS}/authorized_keys",
        wires={name: f"hubport,hubid={number}" for number, name in enumerate(wires)},
        start=True,
    )
    argv = command_line(spec, iommus, channels, image, qemu)
    command = shell_lines(argv)
    environment = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(qemu.env.items()))
    return _SCRIPT.format(environment=environment, command=command)


def shell_lines(argv: Sequence[str]) -> str:
    """`argv` as a shell command, one argument a line."""
    return " \\\n    ".join(_quoted(argument) for argument in argv)


def device_add_note(qdev: Mapping[str, Any]) -> str:
    """A comment that tells how to add `qdev` at the monitor of the script's QEMU."""
    options = ",".join(f"{name}={_word(value)}" for name, value in qdev.items() if name != "driver")
    return f"# then, at the monitor: device_add {qdev['driver']},{options}\n"


def _quoted(argument: str) -> str:
    """`argument` for the shell, with the directory of keys left to be filled in."""
    return '"$keys"'.join(shlex.quote(part) if part else "" for part in argument.split(_KEYS)) or "''"


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).replace(",", ",,")
