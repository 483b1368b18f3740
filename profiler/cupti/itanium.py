"""C++ names as the compiler wrote them, read back: the part of the Itanium ABI that kernels use.

The system's `__cxa_demangle` refuses names of more than 1,024 characters, which those of CUTLASS
and FlashAttention easily have, and nothing bounds what it makes of a hostile one: 272 characters
become 400 MB. Here every text that is made counts against a budget. Written the way
`__cxa_demangle` writes, which the tests compare.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from gputap.profiler.cupti.itanium_cursor import (
    MAX_DEPTH,
    MAX_STEPS,
    Cursor,
    Type,
    Types,
    Unreadable,
)
from gputap.profiler.cupti.itanium_words import BINARY, BUILTIN, D_BUILTIN, OPERATORS, STD, UNARY


def demangled(name: str) -> str:
    """What a mangled name stands for, parameters included. Raises Unreadable."""
    if not name.startswith("_Z"):
        raise Unreadable("not mangled")
    return _Reader(name).whole()


def _clones(suffix: str) -> list[str]:
    """`.isra.0.cold` is a clone of a clone: `.isra.0` and `.cold`."""
    return re.findall(r"\.[A-Za-z_]+(?:\.\d+)*|\.\d+", suffix)


class _Reader(Cursor):
    """A recursive descent over one name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._depth = 0
        self._steps = 0
        self._seen: Types = []
        """What S_, S0_, ... stand for."""
        self._arguments: Types = []
        """What T_, T0_, ... stand for."""
        self._pack_index: int | None = None
        self._pack_sizes: list[int] = []
        self._in_lambda = 0

    def whole(self) -> str:
        """The text of all of the name."""
        text = self._encoding()
        rest = self._name[self._at :]
        if rest and not rest.startswith("."):
            raise Unreadable(f"{rest[:20]!r} is left")
        # `.kd` is what AMD calls the descriptor of a kernel.
        return text + "".join(f" [clone {part}]" for part in _clones(rest.removesuffix(".kd")))

    # ----------------------------------------------------------------------------------- names

    def _encoding(self, *, is_scope: bool = False, is_address: bool = False) -> str:
        """A name, and the parameters where it is a function.

        Of a scope the result is left out, of an address the parameters too.
        """
        outer, self._arguments = self._arguments, []
        try:
            name, returns, suffix = self._whole_name(top=True)
            if not self._peek() or self._peek() in "E.":
                return name + suffix
            result = self._type() if returns else None
            parameters = self._parameters(lambda: not self._peek() or self._peek() in "E.")
        finally:
            self._arguments = outer
        if is_address:
            return name
        text = f"{name}({parameters}){suffix}"
        if result is not None and not is_scope:
            space = "" if result.left.endswith(("*", "&", "(")) and result.right else " "
            text = f"{result.left}{space}{text}{result.right}"
        return self._made_text(text)

    def _parameters(self, ended: Callable[[], bool]) -> str:
        types: Types = []
        while not ended():
            one = self._type()
            types += one.pack if one.pack is not None else [one]
        return "" if [t.text for t in types] == ["void"] else self._joined(types)

    def _whole_name(self, *, top: bool = False) -> tuple[str, bool, str]:
        """A name, whether a function of it writes its result, and what follows the parameters."""
        self._eat("L") if top else None
        if self._eat("N"):
            return self._nested(top)
        if self._eat("Z"):
            return self._local()
        if self._peek() == "S" and self._peek(2) != "St":
            name, is_new = self._substitution().text, False
        else:
            prefix = "std::" if self._eat("St") else ""
            self._eat("L")
            name, is_new = prefix + self._unqualified(""), True
        if self._peek() != "I":
            return name, False, ""
        if is_new:
            self._seen.append(Type(name))
        return self._with_arguments(name, top), True, ""

    def _nested(self, top: bool) -> tuple[str, bool, str]:
        suffix = ""
        for letter, word in (("r", " restrict"), ("V", " volatile"), ("K", " const")):
            suffix += word if self._eat(letter) else ""
        suffix += " &&" if self._eat("O") else " &" if self._eat("R") else ""
        name, last, returns = "", "", False
        while not self._eat("E"):
            is_new = True
            if self._peek() == "S":
                is_new = False
                name = "std" if self._eat("St") else self._substitution().text
                last, returns = name.rpartition("::")[2], False
            elif self._peek() == "I":
                name = self._with_arguments(name, top)
                returns = last not in ("", "(constructor)")
            else:
                part, last, returns = self._component(name, last)
                name = self._made_text(f"{name}::{part}" if name else part)
            if is_new and self._peek() != "E":
                self._seen.append(Type(name))
        return name, returns, suffix

    def _with_arguments(self, name: str, top: bool) -> str:
        space = " " if name.endswith("<") else ""
        return self._made_text(name + space + self._template_arguments(top))

    def _component(self, scope: str, last: str) -> tuple[str, str, bool]:
        """One part of a nested name; what a constructor behind it is called; False."""
        if self._peek() == "T":
            text = self._parameter().text
            return text, text, False
        if self._peek(2) in ("Dt", "DT"):
            text = self._type().text
            return text, text, False
        self._eat("L")
        if self._peek() == "C" and self._peek(2)[1:].isdigit():
            self._at += 2
            return last, "(constructor)", False
        if self._peek() == "D" and self._peek(2)[1:].isdigit():
            self._at += 2
            return f"~{last}", "(constructor)", False
        text = self._unqualified(scope)
        self._eat("M")
        return text, text, False

    def _local(self) -> tuple[str, bool, str]:
        """What is declared in a function."""
        scope = self._encoding(is_scope=True)
        self._need("E")
        if self._eat("s"):
            self._discriminator()
            return f"{scope}::string literal", False, ""
        if self._eat("d"):
            self._digits()
            self._need("_")
        name, returns, suffix = self._whole_name()
        self._discriminator()
        return self._made_text(f"{scope}::{name}"), returns, suffix

    def _discriminator(self) -> None:
        if self._eat("__"):
            self._digits()
            self._need("_")
        elif self._peek() == "_" and self._peek(2)[1:].isdigit():
            self._at += 2

    def _unqualified(self, scope: str) -> str:
        if self._peek().isdigit():
            text = self._source_name()
        elif self._eat("Ul"):
            self._in_lambda += 1
            parameters = self._parameters(lambda: self._peek() == "E")
            self._in_lambda -= 1
            self._need("E")
            text = f"{{lambda({parameters})#{self._sequence() + 1}}}"
        elif self._eat("Ut"):
            text = f"{{unnamed type#{self._sequence() + 1}}}"
        else:
            text = self._operator()
        while self._eat("B"):
            text += f"[abi:{self._source_name()}]"
        return self._made_text(text)

    def _source_name(self) -> str:
        length = int(self._digits() or "0")
        text = self._peek(length)
        if not length or len(text) < length:
            raise Unreadable("a name that does not end")
        self._at += length
        # nvcc's are _GLOBAL__N__, a hash and the file.
        return "(anonymous namespace)" if text.startswith("_GLOBAL__N") else text

    def _operator(self) -> str:
        if self._eat("cv"):
            return f"operator {self._type().text}"
        if self._eat("li"):
            return f'operator"" {self._source_name()}'
        word = OPERATORS.get(self._peek(2))
        if word is None:
            raise Unreadable(f"unknown operator at {self._at}")
        self._at += 2
        return f"operator {word}" if word[0].isalpha() else f"operator{word}"

    # ------------------------------------------------------------------- substitutions, templates

    def _substitution(self) -> Type:
        self._need("S")
        known = STD.get(self._peek())
        if known:
            self._at += 1
            return Type(known)
        index = self._sequence(36)
        if index >= len(self._seen):
            raise Unreadable("a reference to nothing")
        return self._seen[index]

    def _parameter(self) -> Type:
        """`T_`: an argument of the template around it."""
        self._need("T")
        index = self._sequence()
        if self._in_lambda:
            return Type(f"auto:{index + 1}")
        if index >= len(self._arguments):
            raise Unreadable("a template parameter of no template")
        found = self._arguments[index]
        if found.pack is None:
            return found
        self._pack_sizes.append(len(found.pack))
        if self._pack_index is None:
            return found
        if self._pack_index >= len(found.pack):
            raise Unreadable("packs of several sizes")
        return found.pack[self._pack_index]

    def _template_arguments(self, top: bool) -> str:
        self._need("I")
        arguments: Types = []
        if top:  # a later argument may refer to one before it
            self._arguments = arguments
        while not self._eat("E"):
            arguments.append(self._argument())
        flat: Types = []
        for one in arguments:
            flat += one.pack if one.pack is not None else [one]
        text = self._joined(flat)
        return f"<{text} >" if text.endswith(">") else f"<{text}>"

    def _argument(self) -> Type:
        if self._peek() == "L":
            return self._literal()
        if self._eat("Tn"):  # the type of a value is written before it since Clang 18
            self._type()
            return self._argument()
        if self._eat("XspT"):
            self._at -= 1
            found = self._parameter()
            self._need("E")
            return found
        if self._eat("X"):
            found = self._type_of(self._expression())
            self._need("E")
            return found
        if self._eat("J") or self._eat("I"):  # I is how old compilers wrote J
            pack = tuple(self._until(self._argument))
            return Type(self._joined(list(pack)), pack=pack)
        return self._type()

    def _literal(self) -> Type:
        self._need("L")
        if self._eat("_Z") or self._eat("Z"):
            text = self._encoding()
            self._need("E")
            return self._type_of(text)
        letter = self._peek()
        kind = self._type().text
        end = self._name.find("E", self._at)
        if end < 0:
            raise Unreadable("a value that does not end")
        value = self._name[self._at : end].replace("n", "-", 1)
        self._at = end + 1
        if not value:
            return Type(kind)
        if letter == "b" and value in ("0", "1"):
            return Type("true" if value == "1" else "false")
        suffix = {"i": "", "j": "u", "l": "l", "m": "ul", "x": "ll", "y": "ull"}.get(letter)
        if suffix is None and letter in "fde":
            return self._type_of(f"({kind})[{value}]")
        return self._type_of(f"({kind}){value}" if suffix is None else value + suffix)

    # ----------------------------------------------------------------------------------- types

    def _enter(self) -> None:
        self._depth += 1
        self._steps += 1
        if self._depth > MAX_DEPTH or self._steps > MAX_STEPS:
            raise Unreadable("too deep, or too much")

    def _type(self) -> Type:
        self._enter()
        found = self._type_here()
        self._depth -= 1
        return found

    def _type_here(self) -> Type:
        letter = self._peek()
        if letter in BUILTIN and letter:
            self._at += 1
            return Type(BUILTIN[letter])
        if letter == "D":
            return self._d_type()
        if letter == "S" and self._peek(2) != "St":
            found = self._substitution()
            if self._peek() != "I":
                return found
            found = self._type_of(found.text + self._template_arguments(False))
        elif letter == "u":
            self._at += 1
            found = self._type_of(self._source_name())
            if self._peek() == "I":
                found = self._type_of(found.text + self._template_arguments(False))
        else:
            found = self._compound(letter)
        self._seen.append(found)
        return found

    def _compound(self, letter: str) -> Type:
        if letter and letter in _COMPOUND:
            return _COMPOUND[letter](self)
        if letter == "T" and self._peek(2) not in ("Ts", "Tu", "Te"):
            return self._parameter_type()
        for mark in ("Ts", "Tu", "Te"):
            self._eat(mark)
        return self._type_of(self._whole_name()[0])

    def _parameter_type(self) -> Type:
        found = self._parameter()
        if self._peek() != "I":
            return found
        self._seen.append(found)
        return self._type_of(found.text + self._template_arguments(False))

    def _reference(self) -> Type:
        word = {"P": "*", "R": "&", "O": "&&"}[self._take()]
        return self._each(self._type(), lambda inner: self._pointer(inner, word))

    def _complex(self) -> Type:
        self._take()
        return self._type_of(self._type().text + " _Complex")

    def _vendor_qualified(self) -> Type:
        self._take()
        word = self._source_name()
        if self._peek() == "I":
            word += self._template_arguments(False)
        inner = self._type()
        return self._type_of(f"{inner.left} {word}", inner.right)

    def _each(self, inner: Type, change: Callable[[Type], Type]) -> Type:
        """What becomes of a type, or of each of a pack."""
        if inner.pack is None:
            return change(inner)
        pack = tuple(change(one) for one in inner.pack)
        return Type(self._joined(list(pack)), pack=pack)

    def _pointer(self, inner: Type, word: str) -> Type:
        if not inner.wraps:
            if inner.left.endswith("&") and word != "*":
                # A reference to a reference: && stays only on &&.
                both = inner.left.endswith("&&") and word == "&&"
                return Type(inner.left.rstrip("&") + ("&&" if both else "&"), inner.right)
            return self._type_of(inner.left + word, inner.right)
        return self._type_of(f"{inner.left.rstrip()} ({word}", f"){inner.right}")

    def _qualified(self) -> Type:
        words = ""
        for letter, word in (("r", " restrict"), ("V", " volatile"), ("K", " const")):
            words = word + words if self._eat(letter) else words
        words = "".join(f" {word}" for word in reversed(words.split()))
        inner = self._type()
        if inner.wraps == "function":
            return self._type_of(inner.left, inner.right + words, inner.wraps)
        return self._each(inner, lambda one: self._with_words(one, words))

    def _with_words(self, one: Type, words: str) -> Type:
        """With `const` and the like behind it, where they are not there already."""
        added = "".join(f" {word}" for word in words.split() if not one.left.endswith(f" {word}"))
        return self._type_of(one.left + added, one.right, one.wraps)

    def _function(self) -> Type:
        self._need("F")
        self._eat("Y")
        result = self._type()
        parameters = self._parameters(lambda: self._peek() in ("E", "R", "O") and self._closes())
        reference = " &&" if self._eat("O") else " &" if self._eat("R") else ""
        self._need("E")
        return self._type_of(
            f"{result.left} ", f"({parameters}){reference}{result.right}", "function"
        )

    def _closes(self) -> bool:
        """Whether a function type ends here, maybe by a qualifier of its object."""
        return self._peek() == "E" or self._peek(2) in ("RE", "OE")

    def _array(self) -> Type:
        self._take()
        size = self._digits()
        if not size and self._peek() != "_":
            size = self._expression()
        self._need("_")
        inner = self._type()
        return self._type_of(inner.left, f" [{size}]{inner.right.lstrip()}", "array")

    def _member(self) -> Type:
        self._take()
        scope, inner = self._type(), self._type()
        if inner.wraps:
            return self._type_of(f"{inner.left}({scope.text}::*", f"){inner.right}")
        return self._type_of(f"{inner.left} {scope.text}::*", inner.right)

    def _d_type(self) -> Type:
        """Types that begin with D. Those of a word of their own are never referred to."""
        word = D_BUILTIN.get(self._peek(2))
        if word:
            self._at += 2
            return Type(word)
        if self._eat("Dp"):
            return self._expansion()
        if self._eat("DF"):
            bits = self._digits()
            end = "b" if self._eat("b") else "x" if self._eat("x") else ""
            if not end:
                self._need("_")
            return Type("std::bfloat16_t" if end == "b" else f"_Float{bits}{end}")
        if self._eat("Dv"):
            size = self._digits() if self._peek() != "_" else ""
            self._need("_")
            found = self._type_of(f"{self._type().text} __vector({size})")
            self._seen.append(found)
            return found
        if self._peek(2) in ("Dt", "DT"):
            self._at += 2
            found = self._type_of(f"decltype ({self._expression()})")
            self._need("E")
            self._seen.append(found)
            return found
        if self._eat("Do"):
            inner = self._type()
            self._seen.pop()
            found = self._type_of(inner.left, f"{inner.right} noexcept", inner.wraps)
            self._seen.append(found)
            return found
        raise Unreadable(f"unknown type at {self._at}")

    def _expansion(self) -> Type:
        """A pattern once for each type of the packs in it."""
        start, outer, sizes = self._at, self._pack_index, self._pack_sizes
        self._pack_index, self._pack_sizes = None, []
        whole = self._type()
        found_sizes, self._pack_sizes = self._pack_sizes, sizes
        if not found_sizes:
            self._pack_index = outer
            # Without a parameter of its own it may refer to a pack that was read before.
            is_pack = whole.pack is not None
            found = whole if is_pack else self._type_of(whole.left + "...", whole.right)
            self._seen.append(found)
            return found
        end, seen = self._at, len(self._seen)
        pack = []
        for index in range(min(found_sizes)):
            self._at, self._pack_index = start, index
            pack.append(self._type())
            del self._seen[seen:]
        self._at, self._pack_index = end, outer
        found = Type(self._joined(pack), pack=tuple(pack))
        self._seen.append(found)
        return found

    # ----------------------------------------------------------------------------- expressions

    def _expression(self) -> str:
        self._enter()
        text = self._made_text(self._expression_here())
        self._depth -= 1
        return text

    def _expression_here(self) -> str:
        if self._peek() == "L":
            return self._literal().text
        if self._peek() == "T":
            return self._parameter().text
        if self._eat("fp"):
            self._digits()
            self._need("_")
            return "{parm#1}"
        code = self._peek(2)
        if code in ("st", "sz", "sZ", "cv", "sr", "cl", "qu"):
            self._at += 2
            return self._special_expression(code)
        if self._eat("adL_Z"):
            name = self._encoding(is_address=True)
            self._need("E")
            return f"&{name}"
        if code in UNARY:
            self._at += 2
            return f"{UNARY[code]}{self._operand()}"
        if code in BINARY:
            self._at += 2
            left, right = self._operand(), self._operand()
            text = f"{left}{BINARY[code]}{right}"
            return f"({text})" if BINARY[code] == ">" else text
        if self._peek().isdigit():
            return self._unresolved()
        raise Unreadable(f"unknown expression at {self._at}")

    def _operand(self) -> str:
        return f"({self._expression()})"

    def _special_expression(self, code: str) -> str:
        if code == "st":
            return f"sizeof ({self._type().text})"
        if code == "sz":
            return f"sizeof ({self._expression()})"
        if code == "sZ":
            pack = self._parameter().pack
            return str(len(pack)) if pack is not None else "sizeof...()"
        if code == "cv":
            return f"({self._type().text}){self._operand()}"
        if code == "sr":
            return f"{self._type().text}::{self._unresolved()}"
        if code == "qu":
            return f"{self._operand()}?{self._operand()} : {self._operand()}"
        function = self._expression()
        arguments = self._until(lambda: Type(self._expression()))
        return f"{function}({self._joined(arguments)})"

    def _unresolved(self) -> str:
        text = self._source_name()
        return text + self._template_arguments(False) if self._peek() == "I" else text


_COMPOUND: Final[dict[str, Callable[[_Reader], Type]]] = {
    "r": _Reader._qualified,
    "V": _Reader._qualified,
    "K": _Reader._qualified,
    "P": _Reader._reference,
    "R": _Reader._reference,
    "O": _Reader._reference,
    "C": _Reader._complex,
    "U": _Reader._vendor_qualified,
    "F": _Reader._function,
    "A": _Reader._array,
    "M": _Reader._member,
}
"""What reads a type that begins with a letter."""
