"""Programs of this package that are sent to another host and run by its Python; nothing is left there."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

from harness.errors import InfraError
from harness.ssh import Channel, Ssh
from harness.waiting import Deadline

#: Reads as many bytes as its argument says: modules with their names and sources, in the order in which they need each
#: other. A module is found by its whole name where it has been put, so the packages around it need not be there. What
#: follows on standard input belongs to the last of them, the program. An input that ends before ends it.
_LOADER = (
    "import json,os,sys,types\nb=b''\n"
    "while len(b)<int(sys.argv[1]):\n"
    " d=os.read(0,int(sys.argv[1])-len(b))\n"
    " if not d: sys.exit('the input ended before the program was whole')\n"
    " b+=d\n"
    "for name,text in json.loads(b):\n"
    " m=sys.modules[name]=types.ModuleType(name)\n"
    " exec(compile(text,name,'exec'),m.__dict__)"
)

#: Seconds for the far end to take a program; most of it is Python's start.
_SENT_S = 30.0


def start_program(
    ssh: Ssh, modules: Sequence[str], data: bytes = b"", *, arguments: Sequence[str] = (), timeout_s: float = 20.0
) -> Channel:
    """Start a program at the other end of `ssh`: the last of `modules`, which may import those before it.

    `data` is the begin of its input, `arguments` are its own, from `sys.argv[2]` on. The caller closes the channel.
    """
    sources = [[name, _source(name)] for name in modules]
    sources[-1][0] = "__main__"
    program = json.dumps(sources).encode()
    channel = ssh.open(["python3", "-I", "-c", _LOADER, str(len(program)), *arguments], timeout_s=timeout_s)
    try:
        channel.send(program + data, Deadline.after(_SENT_S))
    except BaseException:
        channel.close()
        raise
    return channel


def _source(name: str) -> str:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise InfraError(f"this installation lacks {name}")
    return Path(found.origin).read_text(encoding="utf-8")
