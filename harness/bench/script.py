"""Runs one of the scripts of `harness.bench.plain` and reads what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.bench import plain
from harness.errors import InfraError
from harness.waiting import timeout_scale

#: Seconds for a script to do its work; a cold boot on a busy host takes most of it.
SCRIPT_S = 120.0


def run(name: str, directory: Path, order: dict[str, Any]) -> Any:
    """Run the script `name` with `order` in `directory`, and give what it prints; InfraError if it fails."""
    given = directory / f"{name}.json"
    given.write_text(json.dumps(order), encoding="utf-8")
    program = Path(plain.__file__).with_name(f"{name}.py")
    try:
        done = subprocess.run(
            ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, str(program), str(given)],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SCRIPT_S * timeout_scale(),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InfraError(f"the plain script '{name}' took longer than {error.timeout:.0f} s") from None
    if done.returncode:
        raise InfraError(f"the plain script '{name}' failed: {done.stderr.strip()[-2000:]}", evidence=given)
    return json.loads(done.stdout.splitlines()[-1])
