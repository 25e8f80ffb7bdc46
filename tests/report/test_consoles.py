"""Which console is shown of a variant that was an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.evidence import VariantDirectory
from harness.report.consoles import telling_console

PLACES = {
    ".": ("process", "alice/process"),
    "counter/no_viommu": ("process",),
    "counter/no_viommu/template": ("process",),
}


def variant(path: Path, *, hanging: tuple[str, str] | None = None) -> VariantDirectory:
    """A variant with a nested guest and a counter-proof that made a template; one of their guests may not come up."""
    for name, sources in PLACES.items():
        place = VariantDirectory(path / name)
        place.path.mkdir(parents=True, exist_ok=True)
        place.file("console.log").write_text("")
        with place.journal() as journal:
            for source in sources:
                journal.record(source, "start", pid=1)
                if hanging != (name, source):
                    journal.record(source, "ready", boot_s=1.0)
    VariantDirectory(path).guest("alice").file("console.log").write_text("")
    return VariantDirectory(path)


def test_where_all_came_up_it_is_the_variants_own(tmp_path) -> None:
    assert telling_console(variant(tmp_path)) == tmp_path / "console.log"


@pytest.mark.parametrize(
    ("place", "source", "console"),
    [
        ("counter/no_viommu/template", "process", "counter/no_viommu/template/console.log"),
        ("counter/no_viommu", "process", "counter/no_viommu/console.log"),
        (".", "alice/process", "guests/alice/console.log"),
    ],
)
def test_a_boot_that_came_to_nothing_has_its_console_shown(tmp_path, place, source, console) -> None:
    assert telling_console(variant(tmp_path, hanging=(place, source))) == tmp_path / console
