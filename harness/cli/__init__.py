"""The command line: `harness run` and what prepares for it, explains it and reads its results."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from harness.cli import atlas, measure, prepare, records, running, scenarios, shell
from harness.errors import HarnessError
from harness.selection import Unselectable
from harness.source.diagnostics import InputError
from harness.storage import is_storage
from harness.suite import ExitCode
from harness.uninterrupted import interrupt

_EXAMPLES = """\
examples:
  harness run                                 all scenarios
  harness run -t smoke                        those tagged 'smoke'
  harness run -k 'write and not nic' -x       by words of their ids and tags, until the first that goes wrong
  harness run --prove unmapped-write          with protection taken away afterwards: the attack must then land
  harness run 'scenarios/x.yaml::x[image=debian-12]'
  harness run -j 1 --cold                     one at a time, each machine booted
  harness plan unmapped-write                 its steps and the exact QEMU command line; starts nothing
  harness report runs/latest                  make the reports of a run again
  harness judge runs/latest                   judge its evidence again, without QEMU
  harness atlas --bare                        every fault of VT-d, provoked on machines without a guest
  harness bench --only template_speedup       restored guests beside booted ones
  harness soak 100 unmapped-write             the same verdict a hundred times, nothing left behind

exit status:
  0 all passed   1 a scenario failed or is vacuous   2 wrong input   3 error, nothing is known   4 nothing ran
  130 interrupted; what ran is reported
"""


def parser() -> argparse.ArgumentParser:
    """Give the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="harness",
        description="Proves VT-d isolation with QEMU's emulated intel-iommu.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    running.add_to(commands)
    scenarios.add_to(commands)
    prepare.add_to(commands)
    records.add_to(commands)
    atlas.add_to(commands)
    measure.add_to(commands)
    shell.add_to(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status; errors of the user or the machine are told in a screen."""
    arguments = parser().parse_args(argv)
    # What a supervisor's patience ends is ended as by Ctrl-C: the machine is stopped, and what ran is reported.
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = int(arguments.command(arguments))
        sys.stdout.flush()
        return status
    except (InputError, Unselectable) as error:
        print(error, file=sys.stderr)
        return ExitCode.WRONG_INPUT
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has enough (`harness list | head`); keep the interpreter from complaining at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.PASSED
    except OSError as error:
        if not is_storage(error):
            raise
        print(f"error: {error.filename or 'what was to be told'} cannot be written: {error.strerror}", file=sys.stderr)
        return ExitCode.ERROR
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
