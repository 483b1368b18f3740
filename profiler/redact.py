"""Takes secrets out of a command line before anybody sees it or it is written down."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

MASK: Final = "***"

_WORDS: Final = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")
_ALWAYS: Final = {"password", "passwd", "passphrase", "pwd", "secret", "secrets", "credential"}
_ALWAYS_TOO: Final = {"credentials", "apikey", "accesskey", "secretkey", "authtoken"}
_KEY_OF: Final = {"access", "account", "api", "auth", "encryption", "license", "private"}
_KEY_OF_TOO: Final = {"sas", "secret", "service", "signing", "ssh", "storage", "wandb"}

# Values that are secrets whatever stands before them.
_TELLTALE: Final = re.compile(
    r"hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[opsur]_[A-Za-z0-9]{16,}"
    r"|github_pat_[A-Za-z0-9_]{16,}|glpat-[A-Za-z0-9_-]{16,}|xox[abprs]-[A-Za-z0-9-]{10,}"
    r"|AKIA[A-Z0-9]{12,}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*"
)
_URL_LOGIN: Final = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_ASSIGNMENT: Final = re.compile(r"(['\"]?[+~-]*[A-Za-z_][\w.-]*['\"]?\s*[=:])(.*)", re.DOTALL)
# `?token=x&...` in a URL, `{"token":"x"}` in JSON, `key=value,key=value` lists.
_EMBEDDED: Final = re.compile(r"([\w.-]+[\"']?(?:=|:\s*[\"']))([^&;,\s\"']+)")
_BEARER: Final = {"bearer", "basic"}


def is_secret_name(name: str) -> bool:
    """An option or variable of this name holds a secret: `--hf-token`, `AWS_SECRET_ACCESS_KEY`.

    `--tokenizer`, `--max-tokens`, `--token-file`, `--sort-key` and the like are no secrets.
    """
    words = [word.lower() for word in _WORDS.split(name) if word]
    if not words:
        return False
    if words[-1] in {"file", "path", "dir", "name", "id", "length", "len"}:
        return False
    if set(words) & (_ALWAYS | _ALWAYS_TOO):
        return True
    if words[-1] in {"token", "bearer", "authorization"}:
        return True
    return words[-1] == "key" and bool(set(words[:-1]) & (_KEY_OF | _KEY_OF_TOO))


def redact(argv: Sequence[str]) -> tuple[str, ...]:
    """`argv` with the values of secret options and variables, and known forms of keys, masked."""
    shown: list[str] = []
    mask_next = False
    for argument in argv:
        if mask_next and not argument.startswith("--"):
            shown.append(MASK)
            mask_next = argument.lower() in _BEARER
            continue
        shown.append(_redact_one(argument))
        # Only `--name value` and `Name: value`: before a bare word's value anything may stand.
        naming = argument.endswith((":", "=")) or (argument[:1] == "-" and "=" not in argument)
        mask_next = naming and is_secret_name(argument)
    return tuple(shown)


def _redact_one(argument: str) -> str:
    assigned = _ASSIGNMENT.fullmatch(argument)
    if assigned and assigned[2] and is_secret_name(assigned[1]):
        return assigned[1] + MASK
    if any(space in argument for space in " \t\n"):
        # A whole command in one argument, as in `sh -c "python train.py --token x"`.
        parts = re.split(r"(\s+)", argument)
        parts[::2] = redact(parts[::2])
        return "".join(parts)
    masked = _EMBEDDED.sub(_mask_embedded, _URL_LOGIN.sub(MASK, argument))
    return _TELLTALE.sub(MASK, masked)


def _mask_embedded(match: re.Match[str]) -> str:
    return match[1] + MASK if is_secret_name(match[1]) else match[0]
