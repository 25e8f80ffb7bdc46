from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.source import compose as composing
from harness.source.diagnostics import Diagnostic, InputError, did_you_mean, render
from harness.source.document import MAX_BYTES, Document


def parse(text):
    return Document.parse(text, "x.yaml")


def problem(text):
    with pytest.raises(InputError) as caught:
        parse(text)
    return caught.value.diagnostics[-1]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("true", True),
        ("false", False),
        ("True", "True"),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("0x100000", 0x100000),
        ("0o17", 15),
        ("010", "010"),
        ("1_000", "1_000"),
        ("1e3", "1e3"),
        ("10.0", "10.0"),
        (".5", ".5"),
        (".inf", ".inf"),
        ("0b1", "0b1"),
        ("00:02.0", "00:02.0"),
        ("52:54:00:12:34:56", "52:54:00:12:34:56"),
        ("12:30:45", "12:30:45"),
        ("190:20:30", "190:20:30"),
        ("2026-11-22", "2026-11-22"),
        ("=", "="),
        ("<<", "<<"),
        ("9" * 5000, "9" * 5000),
        ('"0x10"', "0x10"),
        ("'true'", "true"),
    ],
)
def test_scalars(written, value):
    document = parse(f"key: {written}\n")
    assert document.data() == {"key": value}
    assert type(document.data()["key"]) is type(value)
    assert document.written(("key",)) == written


def test_keys_are_the_authors_text():
    assert parse("{on: 1, 0x10: 2, true: 3, 00:02.0: 4, '5': 5}").data() == {
        "on": 1,
        "0x10": 2,
        "true": 3,
        "00:02.0": 4,
        "5": 5,
    }


TEXT = """\
# leading comment
first:
    - {a: 1, b: [x, "y z"]}
    -   second: |
          folded
          text

after: end   # comment
"""


@pytest.mark.parametrize(
    ("path", "span", "key"),
    [
        (("first",), (3, 5, 6, 15), (2, 1)),
        (("first", 0), (3, 7, 3, 28), (3, 8)),
        (("first", 0, "a"), (3, 11, 3, 12), (3, 8)),
        (("first", 0, "b"), (3, 17, 3, 27), (3, 14)),
        (("first", 0, "b", 1), (3, 21, 3, 26), (3, 21)),
        (("first", 1), (4, 9, 6, 15), (4, 9)),
        (("after",), (8, 8, 8, 11), (8, 1)),
        ((), (2, 1, 8, 11), (2, 1)),
        (("first", 0, "nothing", "b"), (3, 17, 3, 27), (3, 14)),
        (("first", 7), (3, 5, 6, 15), (2, 1)),
    ],
)
def test_spans(path, span, key):
    document = parse(TEXT)
    found = document.span(path)
    assert (found.line, found.column, found.end_line, found.end_column) == span
    where = document.key_span(path)
    assert (where.line, where.column) == key


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a: 1\na: 2\n", 2, 1, None),
        ("a: &x 1\n", 1, 4, "an anchor; a scenario is written out, without aliases"),
        ("a: *x\n", 1, 4, "an alias; a scenario is written out, 'matrix:' is its only multiplier"),
        ("a: !!python/name:os.system x\n", 1, 4, "a tag; quote the value if it is a string"),
        ("a: !x [1]\n", 1, 4, "a tag; quote the value if it is a string"),
        ("a: 1\n---\nb: 2\n", 2, 1, "a second document; one file holds one scenario"),
        ("? [a]\n: 1\n", 1, 3, "a key that is not a plain word"),
        ("a:\n\tb: 1\n", 2, 1, "not YAML: a tab; YAML is indented with spaces"),
        ("a: b: c\n", 1, 5, "not YAML: a ':' that YAML takes for a key; quote the value"),
        ("q: >=10.0\n", 1, 5, "not YAML: a value that starts with '>' or '|' needs quotes"),
        ("q: @x\n", 1, 4, "not YAML: a value that starts with '@' needs quotes"),
        ("", 1, 1, "a scenario is a mapping; found nothing"),
        ("# nothing\n", 1, 1, "a scenario is a mapping; found nothing"),
        ("text\n", 1, 1, "a scenario is a mapping; found 'text'"),
        ("a: \x07\n", 1, 4, "not YAML: the character 0x7 may not stand in YAML"),
        ('a: "\\ud800"\n', 1, 4, "half of a surrogate pair, which is no character"),
        ("[" * 40, 1, 33, "nested deeper than 32 levels"),
        (b"a: \xff\n", 1, 4, "not UTF-8: byte 0xff"),
        (b"a: \xc3\xa4\nb: \xc3", 2, 4, "not UTF-8: byte 0xc3"),
        ("a: 1\n".encode("utf-16"), 1, 1, "not UTF-8: byte 0xff"),
    ],
)
def test_what_is_no_document(text, line, column, message):
    if message is None:
        (found,) = parse(text).problems
        assert found.message == "'a' stands here twice; it was first given in line 1"
    else:
        found = problem(text)
        assert found.message == message
    assert (found.line, found.column) == (line, column)


def test_the_first_of_two_keys_is_kept_so_that_reading_goes_on():
    assert parse("a: 1\na: 2\nb: 3\n").data() == {"a": 1, "b": 3}


def test_depth_and_size_have_limits():
    assert parse("a: " + "[" * 31 + "]" * 31).data()
    assert problem("a: " + "[" * 100_000).message == "nested deeper than 32 levels"
    assert problem("a: " + "x" * MAX_BYTES).message == "larger than 256 KiB"


def test_windows_line_ends_and_byte_order_mark():
    document = Document.parse(b"\xef\xbb\xbfa: 1\r\nb: two\r\n", "x.yaml")
    assert document.data() == {"a": 1, "b": "two"}
    assert document.diagnostic(("b",), "no").render() == "x.yaml:2:4: error: no\n    2 | b: two\n      |    ^^^"


def test_rendering_shows_no_control_characters_and_lines_up():
    shown = Diagnostic("x.yaml", 3, 4, 2, "bad\x1b[2J", None, "\t設 ok\x1b").render()
    assert shown == "x.yaml:3:4: error: bad\ufffd[2J\n    3 |  設 ok\ufffd\n      |     ^^"


def test_errors_are_sorted_counted_and_told_once():
    one, two = Diagnostic("a.yaml", 2, 1, 1, "x", None, "l"), Diagnostic("a.yaml", 1, 5, 1, "y", None, "k: m")
    error = InputError([one, two, one])
    assert error.diagnostics == (two, one)
    assert isinstance(error, HarnessError)
    assert str(error).splitlines()[-1] == "2 errors in a.yaml"
    assert render([one]).splitlines()[-1] == "1 error in a.yaml"
    assert render([one, Diagnostic("b.yaml", 0, 0, 0, "gone")]).splitlines()[-2:] == [
        "b.yaml: error: gone",
        "2 errors in 2 files",
    ]


def test_suggestions():
    assert did_you_mean("caching-mode", ["aw_bits", "caching_mode"]) == "did you mean 'caching_mode'?"
    assert did_you_mean("zzz", ["a", "b"], plural="keys") == "keys: a, b"
    assert did_you_mean("zzz", []) is None


@settings(max_examples=300, deadline=None)
@given(st.text(min_size=1, max_size=40))
def test_what_the_author_writes_is_shown_back(text):
    source = f"key: {text}\n"
    try:
        events = [event for event in yaml.parse(source, Loader=yaml.SafeLoader) if isinstance(event, yaml.ScalarEvent)]
    except (yaml.YAMLError, ValueError):
        reject()
    assume(len(events) == 2 and events[1].style is None and events[1].value == text and not events[1].anchor)
    document = parse(source)
    assert document.written(("key",)) == text
    value = document.data()["key"]
    assert value == text or isinstance(value, bool | int) or value is None


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=40))
def test_quoted_text_means_itself(text):
    quoted = json.dumps(text)
    document = parse(f"key: {quoted}\n")
    assert document.data() == {"key": text}
    assert document.written(("key",)) == quoted


_PIECES = [
    *":-?[]{},#\"'|>&*!%@`~\\=", "\n", "\n  ", " ", "\t", "\r\n", "\x85", "\u2028", "\xe9", "\ufeff", "\x00",
    "...", "---", ": ", "- ", "? ", "<<", "''", '""', "|-\n", ">+\n", "0x", "on", '"\\x41"',
]  # fmt: skip
_SHIPPED = [path.read_text(encoding="utf-8") for path in sorted(Path("scenarios").glob("*.yaml"))]


def composed(text, fast, monkeypatch):
    monkeypatch.setattr(composing, "_FAST", fast)
    try:
        return composing.compose(composing.Source("x.yaml", text))
    except InputError as error:
        return str(error)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(_SHIPPED), st.data())
def test_both_parsers_of_yaml_give_the_same_tree_and_the_same_complaints(text, data):
    fast = getattr(yaml, "CSafeLoader", None)
    if fast is None:
        pytest.skip("PyYAML was built without libyaml")
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(text)))
        text = text[:place] + data.draw(st.sampled_from(_PIECES)) + text[place + data.draw(st.integers(0, 3)) :]
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert composed(text, fast, monkeypatch) == composed(text, None, monkeypatch)


def test_a_shipped_scenario_is_read_by_the_fast_parser():
    if getattr(yaml, "CSafeLoader", None) is None:
        pytest.skip("PyYAML was built without libyaml")
    text = next(text for text in _SHIPPED if "|" not in text and text.isascii())
    assert composing._read_fast(composing._Composer(composing.Source("x.yaml", text)))
