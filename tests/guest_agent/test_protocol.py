"""Answers that only a broken operation can provoke."""

import protocol
import pytest


def test_a_bug_in_an_operation_becomes_an_error_that_names_its_place():
    def broken():
        return {"never": 1 // 0}

    reply = protocol.answer(b'{"id": 3, "op": "broken"}', {"broken": broken})
    assert reply["id"] == 3
    assert "bug in the guest agent: test_protocol.py:" in reply["error"]["reason"]
    assert "ZeroDivisionError" in reply["error"]["reason"]


def test_an_attempt_tells_what_it_was_and_on_which_path():
    with (
        pytest.raises(protocol.Refused, match=r"read the table \(/no/table\): No such file") as caught,
        protocol.attempting("read the table"),
        open("/no/table"),  # noqa: PTH123 - the agent opens so
    ):
        pass
    assert caught.value.errno == 2


def test_optional_arguments_may_be_null_where_the_signature_says_so():
    def choose(*, driver: "str | None"):
        return {"driver": driver}

    assert protocol.answer(b'{"op": "choose", "args": {"driver": null}}', {"choose": choose})["ok"] == {"driver": None}
