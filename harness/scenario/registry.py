"""What the files of `harness/steps` and `harness/devices` register themselves in, by being imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by the word a scenario calls them by; `kind` is what messages call one."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, type[T]] = {}

    def add(self, word: str, cls: type[T]) -> None:
        """Register `cls`. Raises TypeError if the word is taken, naming both modules, or if the class says nothing."""
        taken = self._classes.get(word)
        if taken is not None:
            raise TypeError(f"{self.kind} '{word}' is defined by {taken.__module__} and by {cls.__module__}")
        if not (cls.__dict__.get("__doc__") or "").strip():
            raise TypeError(f"{self.kind} '{word}' in {cls.__module__} has no docstring; it is the author's help text")
        self._classes[word] = cls

    def __getitem__(self, word: str) -> type[T]:
        return self._classes[word]

    def __contains__(self, word: object) -> bool:
        return word in self._classes

    def __iter__(self) -> Iterator[str]:
        """The words, sorted."""
        return iter(sorted(self._classes))

    @contextmanager
    def emptied(self) -> Iterator[None]:
        """Forget everything for the time of a `with` block, so that a test can define words of its own."""
        kept, self._classes = self._classes, {}
        try:
            yield
        finally:
            self._classes = kept
