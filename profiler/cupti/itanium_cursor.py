"""A place in a mangled name, and the budget for all text that is made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

MAX_MADE: Final = 1 << 22
"""Characters of all texts made on the way. Real names of 16 KB need a quarter of it."""

MAX_TEXT: Final = 1 << 15
"""Characters of the result; a name that would be longer stays mangled."""

MAX_STEPS: Final = 100_000
"""Types read: a pack in a pack in a pack is read again and again. Real names need some thousand."""

MAX_DEPTH: Final = 100
"""Types within types; each takes some of Python's own stack."""


class Unreadable(Exception):
    """It is no mangled name, uses something that is not known here, or exceeds the budget."""


@dataclass(frozen=True, slots=True)
class Type:
    """A type around a place for a name: `int (*` and `)(float)`."""

    left: str
    right: str = ""
    wraps: str = ""
    """`function` or `array`: a pointer to it goes inside."""
    pack: tuple[Type, ...] | None = None
    """What it stands for, if that is any number of types or values."""

    @property
    def text(self) -> str:
        """The whole, with nothing at that place."""
        return self.left + self.right


Types: TypeAlias = list[Type]


class Cursor:
    """Reads letters, words and numbers. Whatever does not fit raises Unreadable."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._at = 2
        self._made = 0

    def _peek(self, length: int = 1) -> str:
        return self._name[self._at : self._at + length]

    def _take(self) -> str:
        letter = self._peek()
        self._at += 1
        return letter

    def _eat(self, word: str) -> bool:
        if self._name.startswith(word, self._at):
            self._at += len(word)
            return True
        return False

    def _need(self, word: str) -> None:
        if not self._eat(word):
            raise Unreadable(f"{word!r} expected at {self._at}")

    def _digits(self, alphabet: str = "0123456789") -> str:
        start = self._at
        while self._at < len(self._name) and self._name[self._at] in alphabet:
            self._at += 1
        if self._at - start > 9:
            raise Unreadable("a number without end")
        return self._name[start : self._at]

    def _sequence(self, base: int = 10) -> int:
        """`_` is 0, `0_` is 1, ..."""
        digits = self._digits("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:base])
        self._need("_")
        return int(digits, base) + 1 if digits else 0

    def _made_text(self, text: str) -> str:
        """Count a text that was made. Raises Unreadable when it is too much."""
        self._made += len(text)
        if len(text) > MAX_TEXT or self._made > MAX_MADE:
            raise Unreadable("it would be too long")
        return text

    def _type_of(self, left: str, right: str = "", wraps: str = "") -> Type:
        self._made_text(left)
        self._made_text(right)
        return Type(left, right, wraps)

    def _until(self, read: Callable[[], Type], end: str = "E") -> Types:
        """Read until `end`, packs replaced by what is in them."""
        found: Types = []
        while not self._eat(end):
            before = self._at
            one = read()
            found += one.pack if one.pack is not None else [one]
            if self._at == before:
                raise Unreadable("nothing was read")
        return found

    def _joined(self, types: Types) -> str:
        return self._made_text(", ".join(one.text for one in types))
