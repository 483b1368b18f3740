"""The fixed words of mangled C++ names: types, operators, abbreviations."""

from __future__ import annotations

from typing import Final

BUILTIN: Final = {
    "v": "void",
    "w": "wchar_t",
    "b": "bool",
    "c": "char",
    "a": "signed char",
    "h": "unsigned char",
    "s": "short",
    "t": "unsigned short",
    "i": "int",
    "j": "unsigned int",
    "l": "long",
    "m": "unsigned long",
    "x": "long long",
    "y": "unsigned long long",
    "n": "__int128",
    "o": "unsigned __int128",
    "f": "float",
    "d": "double",
    "e": "long double",
    "g": "__float128",
    "z": "...",
}

D_BUILTIN: Final = {
    "Da": "auto",
    "Dc": "decltype(auto)",
    "Dd": "decimal64",
    "De": "decimal128",
    "Df": "decimal32",
    "Dh": "half",
    "Di": "char32_t",
    "Dn": "decltype(nullptr)",
    "Ds": "char16_t",
    "Du": "char8_t",
}

STD: Final = {
    "t": "std",
    "a": "std::allocator",
    "b": "std::basic_string",
    "s": "std::string",
    "i": "std::istream",
    "o": "std::ostream",
    "d": "std::iostream",
}

UNARY: Final = {
    "ad": "&",
    "de": "*",
    "ng": "-",
    "nt": "!",
    "co": "~",
    "ps": "+",
}

BINARY: Final = {
    "aa": "&&",
    "an": "&",
    "cm": ",",
    "dt": ".",
    "dv": "/",
    "eo": "^",
    "eq": "==",
    "ge": ">=",
    "gt": ">",
    "le": "<=",
    "ls": "<<",
    "lt": "<",
    "mi": "-",
    "ml": "*",
    "ne": "!=",
    "oo": "||",
    "or": "|",
    "pl": "+",
    "pt": "->",
    "rm": "%",
    "rs": ">>",
}

OPERATORS: Final = {
    **UNARY,
    **BINARY,
    "aN": "&=",
    "aS": "=",
    "cl": "()",
    "da": "delete[]",
    "dl": "delete",
    "dV": "/=",
    "eO": "^=",
    "ix": "[]",
    "lS": "<<=",
    "mI": "-=",
    "mL": "*=",
    "mm": "--",
    "na": "new[]",
    "nw": "new",
    "oR": "|=",
    "pL": "+=",
    "pm": "->*",
    "pp": "++",
    "qu": "?",
    "rM": "%=",
    "rS": ">>=",
    "ss": "<=>",
}
