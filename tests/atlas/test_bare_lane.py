"""The bare lane on real QEMUs: it does what the committed page says of it, and QEMU 11 does as it is known to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.atlas.page import PAGE
from harness.images.store import ImageStore

pytestmark = pytest.mark.qemu


def atlas(runs: Path, qemu: str) -> tuple[dict, str]:
    """Run the bare lane on the QEMU of a recipe, and give atlas.json and the page."""
    argv = [sys.executable, "-m", "harness.cli", "atlas", "--bare", "--runs", str(runs)]
    done = subprocess.run(
        argv, env={**os.environ, "VTD_QEMU": qemu}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((runs / "latest/atlas.json").read_text()), (runs / "latest/atlas.md").read_text()


def rows(page: str) -> Iterator[tuple[str, ...]]:
    """Give the rows about machines without a guest, each with the heading it stands under."""
    heading = ""
    for line in page.splitlines():
        if line.startswith("#"):
            heading = line
        cells = line.split(" | ")
        if line.startswith("| ") and len(cells) == 7 and " under " not in cells[1] and "---" not in line:
            yield (heading, *cells)


def test_the_committed_page_says_what_the_bare_lane_does(tmp_path):
    found, page = atlas(tmp_path, "qemu")
    committed = PAGE.read_text(encoding="utf-8")
    if page.partition("\n")[0] != committed.partition("\n")[0]:
        pytest.skip(f"the page is not about QEMU {found['qemu']}")
    assert set(rows(page)) == set(rows(committed)), "`make atlas WRITE=1` writes the page anew"
    assert len(set(rows(page))) > 200


def test_qemu_11_does_as_it_is_known_to(tmp_path):
    store = ImageStore()
    if not store.intact("qemu-11"):
        pytest.skip("`harness images build qemu-11` makes it")
    found, _ = atlas(tmp_path, "qemu-11")
    assert found["qemu"].startswith("11.")
    assert (found["new_deviations"], found["unproven"], found["skipped"]) == (0, [], [])
    assert found["provoked"] == found["raisable"]
    assert found["variants"] > 200
