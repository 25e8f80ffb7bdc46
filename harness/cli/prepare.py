"""`harness doctor` and `harness images`: what must be there before a scenario can run."""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from harness.cli.commands import add, add_host
from harness.devices.host_nic import IDENTIFICATIONS
from harness.equipment import open_host
from harness.host.doctor import Need, examine, render
from harness.host.resources import cores
from harness.images.store import ImageStore
from harness.lab.survey import take_survey
from harness.report.live import Live
from harness.ssh import SshAddress, connected
from harness.suite import ExitCode

if TYPE_CHECKING:
    from harness.cli.commands import Commands

_MIB = 1 << 20


def add_to(commands: Commands) -> None:
    """Add the commands."""
    text = "say what this machine has and lacks, each lack with the command that mends it"
    add_host(add(commands, "doctor", text, doctor), "say that of another host, and which NICs it could hand out")
    images = add(commands, "images", "build, list or re-pin the guest images and QEMU", list_images)
    images.set_defaults(names=[])
    inner = images.add_subparsers(metavar="ACTION")
    add(inner, "list", "say what is built and where", list_images)
    for name, text, command in (
        ("build", "build what is not built yet", build_images),
        ("repin", "lock the newest packages of the suite, and say which changed", repin_images),
    ):
        action = add(inner, name, text, command)
        action.add_argument("names", nargs="*", metavar="NAME", help="image (all but those for special purposes)")
        action.add_argument("-q", "--quiet", action="store_true", help="say nothing of what is there already")


def doctor(arguments: argparse.Namespace) -> int:
    """Print one line per need; 3 if one is not met. Where a vCPU runs, kernels are booted with KVM anew."""
    if arguments.host is not None:
        return _doctor_there(arguments.host)
    with Live(stream=sys.stderr) as live:
        needs = examine(boots=lambda store: open_host(live.preparing, cache=store.cache, boots=False).try_kvm())
    print(render(needs))
    return ExitCode.PASSED if all(need.ok for need in needs) else ExitCode.ERROR


def _doctor_there(address: SshAddress) -> int:
    """Print what a host has; 3 if no machine can run there. What only a handed NIC needs is told, and no more."""
    with connected(address) as ssh:
        found = take_survey(ssh)
    needs = [*found.needs(), Need("kvm there", ok=True, found=found.kvm or "can be opened; a run proves that it works")]
    print(f"{address}: kernel {found.kernel}, {found.cpus} cores, {found.memory_mib} MiB available")
    print(render(needs))
    of_nics = list(found.nic_needs())
    driven = " or ".join(f"{like} ({identification})" for like, identification in IDENTIFICATIONS.items())
    print(f"\nto hand out a NIC (--nic ADDRESS), which scenarios drive if it is an {driven}:")
    print(render(of_nics) if found.nics else f"{render(of_nics)}\nthe host has no NIC")
    return ExitCode.PASSED if all(need.ok for need in needs) else ExitCode.ERROR


def list_images(arguments: argparse.Namespace) -> int:
    """Print what the cache has of each image."""
    store = ImageStore()
    for state in (store.state(name) for name in arguments.names or store.names()):
        built = f"{state.bytes / _MIB:.0f} MiB at {state.path}"
        if state.path is None:
            built = f"not built: harness images build {state.name}"
        print(f"{state.name:<12} {state.kind:<6} Debian {state.suite:<9} {state.packages:>3} packages locked, {built}")
        for line in state.replaced:
            print(f"{'':<12} not as locked: {line}")
    return ExitCode.PASSED


def build_images(arguments: argparse.Namespace) -> int:
    """Build each image that is not there, as many at once as there are cores, showing what is being done."""
    store = ImageStore()
    names = tuple(dict.fromkeys(arguments.names or store.usual_names()))
    with Live() as live:
        paths = {name: path for stage in store.stages(names) for name, path in _built(store, stage, live).items()}
        if not arguments.quiet:
            for name in names:
                live.note(f"{name}: {paths[name]}")
    return ExitCode.PASSED


def _built(store: ImageStore, names: Sequence[str], live: Live) -> dict[str, Path]:
    """Build `names` beside each other and give where they are; the first error is raised at once, as an interrupt is.

    What is under way then ends with this process: threads are not waited for, their children die with them, and the
    next builder removes what they leave.
    """
    waiting: SimpleQueue[str] = SimpleQueue()
    ended: SimpleQueue[tuple[str, Path | Exception]] = SimpleQueue()

    def build(worker: int) -> None:
        with contextlib.suppress(Empty):
            while name := waiting.get_nowait():
                try:
                    ended.put((name, store.build(name, partial(live.preparing, worker=worker))))
                except Exception as error:  # noqa: BLE001 - raised where the user waits
                    ended.put((name, error))

    for name in names:
        waiting.put(name)
    for worker in range(min(cores().value, len(names))):
        threading.Thread(target=build, args=(worker,), name=f"build-{worker}", daemon=True).start()
    paths: dict[str, Path] = {}
    for _ in names:
        name, outcome = ended.get()
        if isinstance(outcome, Exception):
            raise outcome
        paths[name] = outcome
    return paths


def repin_images(arguments: argparse.Namespace) -> int:
    """Write new locks and say what changed."""
    store = ImageStore()
    with Live() as live:
        for name in arguments.names or store.names():
            changed: Sequence[object] = store.repin(name, live.preparing)
            live.note(f"{name}: {len(changed)} packages changed" if changed else f"{name}: as it was")
            for package in changed:
                live.note(f"    {package}")
    return ExitCode.PASSED
