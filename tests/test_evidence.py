from __future__ import annotations

import json
import subprocess
import sys

WRITER = """
import sys
from pathlib import Path
from harness.evidence import write_json
for number in range(500):
    write_json(Path(sys.argv[1]), {"number": number})
"""


def test_several_processes_may_write_the_same_document_at_once(tmp_path) -> None:
    path = tmp_path / "run.json"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert json.loads(path.read_text()) == {"number": 499}
    assert list(tmp_path.iterdir()) == [path]
