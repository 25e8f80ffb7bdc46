"""Places in a source file, what is wrong there, and how that is shown.

scenarios/x.yaml:14:5: error: 'drvier' is not a field of device 'rogue'
   14 |     drvier: virtio-net-pci
      |     ^^^^^^ did you mean 'driver'?
1 error in scenarios/x.yaml
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from harness.errors import HarnessError

_LISTED_CHOICES = 16


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of `file`. Lines and columns count characters from 1; the end is exclusive."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """One thing wrong in a file, or, as a `remark`, one that may be meant and is told all the same.

    `path` is the file as the user named it, `line` and `column` count from 1 (line 0: the file as a whole), `length` is
    the number of characters under the carets, `suggestion` what to write instead, `source` the line of the file.
    """

    path: str
    line: int
    column: int
    length: int
    message: str
    suggestion: str | None = None
    source: str = ""
    kind: Literal["error", "remark"] = "error"

    def render(self) -> str:
        """The message with its place, the line, and carets under what is wrong; no newline at the end."""
        if not self.line:
            hint = f"; {self.suggestion}" if self.suggestion else ""
            return f"{self.path}: {self.kind}: {_printable(self.message)}{hint}"
        head = f"{self.path}:{self.line}:{self.column}: {self.kind}: {_printable(self.message)}"
        line = _printable(self.source)
        indent = " " * _width(line[: self.column - 1])
        carets = "^" * max(1, _width(line[self.column - 1 : self.column - 1 + self.length]))
        hint = f" {_printable(self.suggestion)}" if self.suggestion else ""
        return f"{head}\n{self.line:>5} | {line}\n      | {indent}{carets}{hint}"


class InputError(HarnessError):
    """Files the user wrote are wrong. `diagnostics` is all of it, sorted by file, line and column, without repeats."""

    exit_code: ClassVar[int] = 2

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(sorted(set(diagnostics), key=lambda d: (d.path, d.line, d.column, d.message)))
        super().__init__(render(self.diagnostics))


def render(diagnostics: Iterable[Diagnostic]) -> str:
    """All diagnostics in the order given, and a last line that counts them."""
    found = tuple(diagnostics)
    files = sorted({diagnostic.path for diagnostic in found})
    where = files[0] if len(files) == 1 else f"{len(files)} files"
    count = "1 error" if len(found) == 1 else f"{len(found)} errors"
    return "\n".join([*(diagnostic.render() for diagnostic in found), f"{count} in {where}"])


def did_you_mean(word: str, choices: Iterable[str], *, plural: str = "known") -> str | None:
    """The likeliest of `choices` for `word` as a question, or all of them headed `plural`; None if there are none."""
    known = list(dict.fromkeys(choices))
    folded = word.lower().replace("-", "_")
    likely = [choice for choice in known if choice.lower().replace("-", "_") == folded]
    likely = likely or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if likely:
        return f"did you mean '{likely[0]}'?"
    if not known:
        return None
    more = ", ..." if len(known) > _LISTED_CHOICES else ""
    return f"{plural}: {', '.join(known[:_LISTED_CHOICES])}{more}"


def _printable(text: str) -> str:
    """`text` with one visible character for each that would move the cursor or hide something."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _width(text: str) -> int:
    """Terminal columns that `text` takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
