"""What the harness adds to the actions of a scenario: its time over that of a plain script that does the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import plan as planning
from harness import suite
from harness.bench import script, subject
from harness.bench.figures import Figure, ratio
from harness.bench.setting import Setting, interleaved, timed
from harness.errors import InfraError
from harness.evidence import Entry, RunDirectory, VariantDirectory
from harness.guest import AGENT_PORT
from harness.machine.argv import Channels, Ram, command_line
from harness.machine.launch import CONSOLE, TRACE
from harness.machine.properties import resolve_all
from harness.plan import Plan
from harness.result import unseen
from harness.ssh import KeyPair
from harness.templates.making import Ingredients
from harness.verdict import Outcome

#: Descriptors that the script gives to QEMU, out of the way of its own.
_QMP, _SSH, _HOST_KEY, _AUTHORIZED_KEYS, _MEMORY = range(100, 105)


def overhead(setting: Setting) -> Figure:
    """Run a scenario and then replay what it did, time after time.

    `harness_s`: from its file to its stored result (load, plan, run, judge, store); `plain_s`: QEMU's start to end in a
    script that sends the same QMP commands and the same requests to the agent, without journal, judge and report.
    """
    home = setting.directory("overhead")
    paths = subject.write(home, variants=1)
    journals: dict[int, tuple[Plan, Sequence[Entry]]] = {}

    def through_harness(number: int) -> float:
        run = suite.begin(home / "runs", setting.host.describe(), prove=False)
        with timed() as watch:
            plan = planning.plan_all(paths, setting.host)[0]
            result = suite.run_one(run, plan, setting.host, prove=False, watch=unseen)
        directory = VariantDirectory(run.path / result.evidence)
        if result.outcome is not Outcome.PASS:
            raise InfraError(f"{result.id}: {result.outcome.value}: {result.reason}", evidence=directory.path)
        journals[number] = plan, directory.entries()
        _forget(run)
        return watch.seconds

    def plain(number: int) -> float:
        plan, entries = journals.pop(number)
        directory = home / f"plain-{number}"
        directory.mkdir()
        seconds = replay(setting, plan, entries, directory)
        shutil.rmtree(directory)
        return seconds

    through_harness(-1)  # with the template made and checked, as it is for all but the first scenario of a run
    samples = interleaved(setting, {"harness_s": through_harness, "plain_s": plain})
    return Figure(value=ratio(samples["harness_s"], samples["plain_s"]), samples=samples)


def replay(setting: Setting, plan: Plan, entries: Sequence[Entry], directory: Path) -> float:
    """Have the plain script do what the journal `entries` of a run of `plan` tells; the seconds it took."""
    host = setting.host
    image, client = host.image(plan.machine.image), KeyPair.generate()
    channels = Channels.inherited(
        qmp_fd=_QMP,
        ssh_fd=_SSH,
        host_key_fd=_HOST_KEY,
        authorized_keys_fd=_AUTHORIZED_KEYS,
        console=str(directory / CONSOLE),
        trace=str(directory / TRACE),
        wire_fds={},
    )
    what = Ingredients(spec=plan.machine, qemu=host.qemu, facts=host.facts, image=image)
    with (
        host.templates.ready(what, directory / "template", host.progress, host.guest_place) as kept,
        host.guest_place(),
    ):
        order = {
            "argv": command_line(
                plan.machine,
                resolve_all(plan.machine.iommus, host.facts),
                channels,
                image,
                host.qemu,
                ram=Ram(str(kept.ram)),
                incoming=True,
            ),
            "environment": host.qemu.env,
            "files": {str(_HOST_KEY): "-\n", str(_AUTHORIZED_KEYS): client.public + "\n"},
            "qmp": _QMP,
            "ssh": _SSH,
            "port": AGENT_PORT,
            "greeting": kept.greeting.hex(),
            "client": client.private.decode(),
            "host_key": kept.host_public,
            "memory": _MEMORY,
            "actions": list(actions(entries)),
        }
        return float(script.run("replay", directory, order))


def actions(entries: Sequence[Entry]) -> Iterator[dict[str, Any]]:
    """Give the QMP commands and agent requests of a journal in their order; InfraError for what cannot be replayed.

    Of several looks at how far a restore is, one is left: the script looks as often as it has to.
    """
    looked = False
    for entry in entries:
        data = entry.data
        if entry.source in ("ssh", "wire") or "error" in data:
            raise InfraError(f"{entry.ref}: '{entry.source} {entry.kind}' cannot be replayed by a plain script")
        if (entry.source, entry.kind) == ("agent", "call"):
            yield {"agent": data["op"], "args": data["args"], "ok": data["ok"]}
        if (entry.source, entry.kind) == ("qmp", "command"):
            if data["command"] == "query-migrate" and looked:
                continue
            looked = looked or data["command"] == "query-migrate"
            arguments = dict(data["arguments"])
            if data["command"] == "pmemsave":
                arguments["filename"] = f"/proc/self/fd/{_MEMORY}"
            yield {"qmp": data["command"], "arguments": arguments}


def _forget(run: RunDirectory) -> None:
    shutil.rmtree(run.path)
