"""How long pytest takes to collect variants of scenarios, beside as many items that are nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from harness.bench import subject
from harness.bench.figures import Figure, ratio
from harness.bench.setting import Setting, interleaved, timed
from harness.errors import InfraError
from harness.waiting import timeout_scale

ITEMS = 1000

_TRIVIAL = """\
import pytest


@pytest.mark.parametrize("n", range({items}))
def test_trivial(n):
    assert n >= 0
"""

_COLLECT_S = 120.0


def collect_ratio(setting: Setting, *, items: int = ITEMS) -> Figure:
    """Compare whole `pytest --collect-only` processes, with the same plugins of the environment in both."""
    ours, trivial = setting.directory("collect/variants"), setting.directory("collect/trivial")
    subject.write(ours, variants=items)
    (ours / "conftest.py").write_text('pytest_plugins = ["harness.pytest_plugin"]\n', encoding="utf-8")
    (trivial / "test_trivial.py").write_text(_TRIVIAL.format(items=items), encoding="utf-8")
    for directory in (ours, trivial):
        (directory / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        _collected(directory, items, setting.scratch)  # writes the byte code that a second call finds
    samples = interleaved(
        setting,
        {
            "variants_s": lambda _: _collected(ours, items, setting.scratch),
            "trivial_s": lambda _: _collected(trivial, items, setting.scratch),
        },
    )
    return Figure(value=ratio(samples["variants_s"], samples["trivial_s"]), samples=samples)


def _collected(directory: Path, items: int, scratch: Path) -> float:
    """Collect what is in `directory` and give the seconds; InfraError if that were not `items` items."""
    # Whether the user's environment wants byte code kept must not decide what is measured.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(scratch / "bytecode")
    argv = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    with timed() as watch:
        done = subprocess.run(
            argv,
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_COLLECT_S * timeout_scale(),
            check=False,
        )
    if done.returncode or f"{items} tests collected" not in done.stdout:
        raise InfraError(f"pytest did not collect {items} items: {(done.stdout + done.stderr).strip()[-2000:]}")
    return watch.seconds
