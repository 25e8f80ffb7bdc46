from __future__ import annotations

import json

import pytest

from harness.machine import taken
from harness.templates.making import as_template


def test_a_deadline_is_a_multiple_of_what_it_took_with_a_floor() -> None:
    how = {"factor": 20, "floor": 30, "otherwise": 120}
    assert taken.within(None, "it", **how).seconds == 120
    assert taken.within(0.4, "it", **how).seconds == 30
    assert taken.within(2.5, "it", **how).seconds == 50
    assert taken.within(10, "it", **how).seconds == 200, "a slow host gets more than what is given without a measure"
    assert "it took 2.5 s before" in taken.within(2.5, "it", **how).why


def test_what_it_took_first_is_kept(tmp_path) -> None:
    assert taken.read(tmp_path) == {}
    taken.note(tmp_path, "ready", 1.25)
    taken.note(tmp_path, "restored", 0.5)
    taken.note(tmp_path, "ready", 99)
    assert taken.read(tmp_path) == {"ready": 1.25, "restored": 0.5}
    assert [path.name for path in tmp_path.iterdir()] == [taken.TAKEN]


@pytest.mark.parametrize("text", ["", "[]", "7", '{"ready": "x"}', '{"ready": -1}', '{"ready": NaN}', "[" * 100_000])
def test_what_cannot_be_read_was_not_measured(text, tmp_path) -> None:
    (tmp_path / taken.TAKEN).write_text(text)
    assert taken.read(tmp_path) == {}
    taken.note(tmp_path, "ready", 1)
    assert json.loads((tmp_path / taken.TAKEN).read_text()) == {"ready": 1}


def test_a_directory_that_is_gone_or_not_ours_goes_without(tmp_path) -> None:
    taken.note(tmp_path / "gone", "ready", 1)
    assert taken.read(tmp_path / "gone") == {}


@pytest.mark.parametrize(("told", "boot_s"), [({}, None), ({"boot_s": 14.5}, 14.5), ({"boot_s": "x"}, None)])
def test_a_template_tells_what_its_boot_took_if_it_was_measured(told, boot_s, tmp_path) -> None:
    record = {"key": "k", "host_public": "ssh-ed25519 AAAA", "greeting": "", **told}
    assert as_template(tmp_path, record).boot_s == boot_s
