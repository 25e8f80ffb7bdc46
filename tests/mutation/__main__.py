"""`python -m tests.mutation RUN`: try single changes to all journals of a run, and tell those that kept a PASS."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.mutation.tolerated import reason_for
from tests.mutation.trial import Tried, grouped, passing, tried


def main() -> int:
    """Print what survived without a reason; 1 if anything did, or if no variant of the run passes."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/latest"), help="run directory (runs/latest)")
    parser.add_argument("--most", type=int, default=2, help="changes of one place in steps of one kind (2)")
    parser.add_argument("--seed", type=int, default=0, help="which changes are chosen (0)")
    parser.add_argument("--all", action="store_true", help="show those that may survive, too")
    arguments = parser.parse_args()
    begun = time.monotonic()
    found = Tried.of(tried(passing(arguments.run.resolve()), most=arguments.most, seed=arguments.seed))
    wrong = [one for one in found.survivors if reason_for(one) is None]
    for place, survivors in sorted(grouped(found.survivors if arguments.all else wrong).items(), key=str):
        why = reason_for(survivors[0])
        print(
            f"{place}: {len(survivors)} of {found.by_place[place]}, such as {survivors[0]}{f' ({why})' if why else ''}"
        )
    print(
        f"{found.number} changes of {len(found.by_place)} places in {time.monotonic() - begun:.0f} s: "
        f"{len(found.survivors)} kept a PASS, {len(wrong)} of them without a reason"
    )
    return 1 if wrong or not found.number else 0


if __name__ == "__main__":
    sys.exit(main())
