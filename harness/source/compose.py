"""From YAML text to a tree of nodes, through PyYAML's event stream.

Built from events instead of PyYAML's composer, because that one recurses (a deep document kills it), follows aliases
(an alias bomb) and lets the last of two equal keys win.
"""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from harness.source.diagnostics import Diagnostic, InputError, Span
from harness.source.nodes import Entry, ListNode, MappingNode, Node, ScalarNode
from harness.source.scalars import resolve

#: Nesting that no scenario needs.
MAX_DEPTH = 32

# PyYAML's scanner counts all of these as the end of a line, so marks are only right with the same rule here.
_LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")

_PLAINER = (
    (re.compile(r"found character '\\t' that cannot start any token"), "a tab; YAML is indented with spaces"),
    (re.compile(r"expected chomping or indentation indicators"), "a value that starts with '>' or '|' needs quotes"),
    (re.compile(r"found character '(.)' that cannot start any token"), r"a value that starts with '\1' needs quotes"),
    (re.compile(r"mapping values are not allowed here"), "a ':' that YAML takes for a key; quote the value"),
    (re.compile(r"could not find expected ':'"), "a line that is neither a list item nor 'key: value'"),
    (re.compile(r"expected <block end>, but found (.*)"), "wrong indentation, or a line that does not belong here"),
)


@dataclass(slots=True)
class Source:
    """Text with the name of its file and its lines as PyYAML counts them."""

    file: str
    text: str
    lines: tuple[str, ...] = field(init=False)
    starts: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = tuple(_LINE_END.split(self.text))
        self.starts = (0, *(match.end() for match in _LINE_END.finditer(self.text)))

    def place(self, index: int) -> tuple[int, int]:
        """Line and column, from 1, of the character at `index`."""
        line = bisect.bisect_right(self.starts, index)
        return line, index - self.starts[line - 1] + 1

    def span(self, start: int, end: int) -> Span:
        """The characters from `start` up to `end`, both indices into the text."""
        return Span(self.file, *self.place(start), *self.place(max(start, end)))

    def diagnostic(self, span: Span, message: str, suggestion: str | None = None) -> Diagnostic:
        """`message` at `span`; a span of many lines is underlined on its first one."""
        line = self.lines[span.line - 1] if span.line <= len(self.lines) else ""
        end = span.end_column if span.end_line == span.line else len(line.rstrip()) + 1
        return Diagnostic(self.file, span.line, span.column, max(1, end - span.column), message, suggestion, line)


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet."""

    start: int
    mapping: bool
    end: int
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)
    key: tuple[str, Span] | None = None


def compose(source: Source) -> tuple[Node | None, list[Diagnostic]]:
    """The root node (None of an empty document) and what is wrong but did not stop the parser, such as equal keys.

    Raises InputError where nothing after the place can be understood: syntax errors, aliases, tags, excessive depth.
    """
    composer = _Composer(source)
    if _read_fast(composer):
        return composer.root, composer.problems
    composer = _Composer(source)
    loader: Any = yaml.SafeLoader("")
    try:
        loader = yaml.SafeLoader(source.text)
        while loader.check_event():
            composer.take(loader.get_event())
    except yaml.YAMLError as error:
        raise InputError([*composer.problems, _syntax_error(source, error)]) from None
    except (ValueError, OverflowError) as error:  # PyYAML lets int() and chr() fail in escapes and directives
        span = source.span(loader.index, loader.index + 1)
        raise InputError([*composer.problems, source.diagnostic(span, f"not YAML: {error}")]) from None
    return composer.root, composer.problems


#: libyaml's parser, five times as fast, where PyYAML was built with it.
_FAST: Any = getattr(yaml, "CSafeLoader", None)
#: Where the two parsers differ: tabs between tokens, '?' in flow collections, byte order marks.
_TOLD_APART = re.compile(r"[^\n\r -~]|\?")


def _read_fast(composer: _Composer) -> bool:
    """Read with libyaml, and tell whether the outcome is what PyYAML's own parser would give.

    It is not for block scalars and empty values, whose places libyaml takes differently, nor for what libyaml refuses:
    only PyYAML's complaints are explained.
    """
    if _FAST is None or _TOLD_APART.search(composer.source.text):
        return False
    try:
        loader = _FAST(composer.source.text)
        while loader.check_event():
            event = loader.get_event()
            empty = event.start_mark.index == event.end_mark.index
            if isinstance(event, yaml.ScalarEvent) and (empty or event.style in {"|", ">"}):
                return False
            composer.take(event)
    except (yaml.YAMLError, ValueError, OverflowError, InputError):
        return False
    return True


class _Composer:
    """Builds nodes bottom-up from events."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Diagnostic] = []
        self.root: Node | None = None
        self._open: list[_Open] = []
        self._documents = 0

    def take(self, event: Any) -> None:
        start, end = event.start_mark.index, event.end_mark.index
        if isinstance(event, yaml.AliasEvent):
            self._stop(start, end, "an alias; a scenario is written out, 'matrix:' is its only multiplier")
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._stop(start, end, "a second document; one file holds one scenario")
        elif isinstance(event, yaml.NodeEvent):
            self._refuse_decoration(event, start, end)
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event, start, end)
            else:
                self._begin(start, end, mapping=isinstance(event, yaml.MappingStartEvent))
        elif isinstance(event, yaml.CollectionEndEvent):
            self._finish(end if end > start else None)

    def _refuse_decoration(self, event: Any, start: int, end: int) -> None:
        if event.anchor is not None:
            self._stop(start, start + 1 + len(event.anchor), "an anchor; a scenario is written out, without aliases")
        if event.tag is not None:
            self._stop(start, end, "a tag; quote the value if it is a string")

    def _begin(self, start: int, end: int, *, mapping: bool) -> None:
        if len(self._open) >= MAX_DEPTH:
            self._stop(start, start + 1, f"nested deeper than {MAX_DEPTH} levels")
        if self._wants_key():
            self._stop(start, end, "a key that is not a plain word")
        self._open.append(_Open(start, mapping, end))

    def _finish(self, end: int | None) -> None:
        done = self._open.pop()
        # The end mark of a block collection lies where the next token starts; its last child tells the end better.
        last = done.end if end is None else end
        span = self.source.span(done.start, last)
        self._add(MappingNode(span, done.entries) if done.mapping else ListNode(span, tuple(done.items)), last)

    def _scalar(self, event: Any, start: int, end: int) -> None:
        block = event.style in {"|", ">"}
        if block:  # its end mark lies where the next token starts
            end = start + len(self.source.text[start:end].rstrip())
        span = self.source.span(start, end)
        text = _joined(event.value)
        if _SURROGATE.search(text):
            self._stop(start, end, "half of a surrogate pair, which is no character")
        if self._wants_key():
            self._open[-1].key = (text, span)
            self._open[-1].end = end
            return
        written = text if block else self.source.text[start:end]
        self._add(ScalarNode(span, text if event.style else resolve(text), written), end)

    def _wants_key(self) -> bool:
        return bool(self._open) and self._open[-1].mapping and self._open[-1].key is None

    def _add(self, node: Node, end: int) -> None:
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        parent.end = max(parent.end, end)
        if parent.key is None:
            parent.items.append(node)
            return
        name, span = parent.key
        parent.key = None
        if name in parent.entries:
            first = parent.entries[name].key_span
            self.problems.append(
                self.source.diagnostic(span, f"'{name}' stands here twice; it was first given in line {first.line}")
            )
        else:
            parent.entries[name] = Entry(span, node)

    def _stop(self, start: int, end: int, message: str) -> None:
        raise InputError([*self.problems, self.source.diagnostic(self.source.span(start, end), message)])


def _joined(text: str) -> str:
    r"""`text` with the pairs of surrogates that JSON writes for one character (`"\ud83d\ude00"`) made into it."""
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _syntax_error(source: Source, error: yaml.YAMLError) -> Diagnostic:
    """PyYAML's complaint in the words of somebody who writes YAML and does not parse it."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        message = error.problem or str(error)
        for pattern, plainer in _PLAINER:
            match = pattern.search(message)
            if match:
                message = match.expand(plainer)
                break
        index = min(mark.index, len(source.text)) if mark else 0
    else:
        index = getattr(error, "position", 0)
        message = f"the character {ord(source.text[index]):#x} may not stand in YAML" if source.text else str(error)
    return source.diagnostic(source.span(index, index + 1), f"not YAML: {message}")
