"""Another process that starts from a template: `another.py CACHE VCPUS`.

It tells of all it does on stdout, and waits for a line on stdin, or its end, before it ends making and using one.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

from harness.evidence import VariantDirectory
from harness.templates import store
from harness.templates.making import Ingredients, Slot
from tests.templates import example


def tell(line: str) -> None:
    print(line, flush=True)


def make(what: Ingredients, directory: Path, evidence: VariantDirectory, slot: Slot) -> float:
    seconds = example.make(what, directory, evidence, slot)
    tell("making")
    sys.stdin.readline()
    return seconds


def main() -> None:
    cache, vcpus = Path(sys.argv[1]), int(sys.argv[2])
    store.make = make
    templates = store.Templates(cache)
    with templates.ready(example.ingredients(vcpus=vcpus), cache / "evidence", tell, nullcontext) as template:
        tell(f"using {template.key}")
        sys.stdin.readline()
    tell("done")


if __name__ == "__main__":
    main()
