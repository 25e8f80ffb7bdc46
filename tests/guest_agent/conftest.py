"""The agent's files are installed flat in the guest, so they import each other by bare names."""

import sys
from pathlib import Path

AGENT = Path(__file__).parents[2] / "harness" / "guest_agent"
sys.path.insert(0, str(AGENT))
