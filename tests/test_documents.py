"""README, docs and schema say what is true."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

import harness.catalog  # noqa: F401  # registers every step and device
from harness.scenario.load import load
from harness.scenario.reference import markdown
from harness.scenario.schema import json_schema

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_schema_is_fresh():
    assert json.loads((ROOT / "scenarios/scenario.schema.json").read_text()) == json_schema(), "run 'harness schema'"


def test_the_reference_is_fresh():
    assert (ROOT / "docs/scenarios.md").read_text(encoding="utf-8") == markdown(), "run 'harness schema'"


def test_the_scenarios_of_the_readme_are_valid(tmp_path):
    loaded = []
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)):
        path = tmp_path / f"readme-{number}.yaml"
        path.write_text(text, encoding="utf-8")
        loaded += [variant.id for variant in load(path)]

    assert loaded == ["unmapped-write", "my-first-fault", "my-first-assignment"]


def test_every_make_target_of_the_readme_is_in_make_help():
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    offered = set(re.findall(r"^  make (\w+)", told, re.MULTILINE))
    named = set(re.findall(r"(?:^    |`)make (\w+)", README, re.MULTILINE))

    assert named
    assert named - offered == set()


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_what_documents_link_to_is_there(document):
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text(encoding="utf-8"))

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
