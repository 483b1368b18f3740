"""Where CPython keeps frames and code objects, by version.

Sources: the headers of each release; a unit test compiles `offsetof` against every interpreter with
headers on the machine. 3.13 and later publish their own offsets at the start of `_PyRuntime`; the
order of those numbers changes from version to version and is data here. 64-bit machines only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from gputap.injectors.library.layouts import packed
from gputap.profiler.schema import PYTHON_LAYOUT


@dataclass(frozen=True, slots=True)
class PythonLayout:
    """`schema.PYTHON_LAYOUT` in Python. -1 = absent; `enabled` 0 = no stacks."""

    version: int = 0
    enabled: int = 0
    tstate_frame: int = -1
    cframe_current: int = -1
    frame_back: int = -1
    frame_code: int = -1
    frame_instr: int = -1
    instr_is_lasti: int = 0
    frame_locals: int = -1
    frame_owner: int = -1
    owner_cstack: int = -1
    pointer_tag_mask: int = 0
    code_name: int = -1
    code_qualname: int = -1
    code_filename: int = -1
    code_firstlineno: int = -1
    code_linetable: int = -1
    code_instructions: int = -1
    ob_type: int = 8
    unicode_length: int = 16
    unicode_state: int = 32
    unicode_ascii_mask: int = 0x60
    """Bits compact and ascii of the state word: the same from 3.8 to 3.14."""
    unicode_ascii_data: int = 48
    bytes_size: int = 16
    bytes_data: int = 32
    unicode_data: int = 72
    unicode_kind_shift: int = 2

    def packed(self) -> npt.NDArray[np.uint8]:
        """The wire form."""
        return packed(PYTHON_LAYOUT, self)


_3_8: Final = PythonLayout(
    version=0x0308,
    enabled=1,
    tstate_frame=24,
    frame_back=24,
    frame_code=32,
    frame_instr=104,
    instr_is_lasti=1,
    frame_locals=360,
    code_name=112,
    code_filename=104,
    code_firstlineno=40,
    code_linetable=120,
)

_3_11: Final = PythonLayout(
    version=0x030B,
    enabled=1,
    tstate_frame=56,
    cframe_current=8,
    frame_back=48,
    frame_code=32,
    frame_instr=56,
    frame_locals=72,
    code_name=120,
    code_qualname=128,
    code_filename=112,
    code_firstlineno=72,
    code_linetable=136,
    code_instructions=184,
)

TABLE: Final = {
    (3, 8): _3_8,
    (3, 9): replace(_3_8, version=0x0309),
    # f_lasti counts code units from here on
    (3, 10): replace(_3_8, version=0x030A, frame_instr=96, instr_is_lasti=2, frame_locals=352),
    (3, 11): _3_11,
    (3, 12): replace(
        _3_11,
        version=0x030C,
        cframe_current=0,
        frame_back=8,
        frame_code=0,
        frame_owner=70,
        owner_cstack=3,
        code_firstlineno=68,
        code_instructions=192,
        unicode_ascii_data=40,
        unicode_data=56,
    ),
}
"""Versions without published offsets."""


@dataclass(frozen=True, slots=True)
class Published:
    """How one version lays out `_Py_DebugOffsets` (8-byte numbers), and what it leaves unsaid."""

    sections: tuple[tuple[str, str], ...]
    """Section name and its fields in order, up to the last section that we read."""
    owner_cstack: int
    pointer_tag_mask: int


_HEAD: Final = ("", "cookie version free_threaded")
_RUNTIME: Final = ("runtime", "size finalizing interpreters_head")
_THREAD: Final = (
    "thread",
    "size prev next interp current_frame thread_id native_thread_id datastack_chunk status",
)
_CODE_FIELDS: Final = (
    "size filename name qualname linetable firstlineno argcount localsplusnames localspluskinds"
    " code_adaptive"
)
_OBJECTS: Final = (
    ("object", "size ob_type"),
    ("type", "size tp_name tp_repr tp_flags"),
    ("tuple", "size ob_item ob_size"),
    ("list", "size ob_item ob_size"),
)
_MORE_OBJECTS: Final = (
    ("dict", "size ma_keys ma_values"),
    ("float", "size ob_fval"),
    ("long", "size lv_tag ob_digit"),
    ("bytes", "size ob_size ob_sval"),
    ("unicode", "size state length asciiobject_size"),
)

PUBLISHED: Final = {
    (3, 13): Published(
        sections=(
            _HEAD,
            _RUNTIME,
            (
                "interpreter",
                "size id next threads_head gc imports_modules sysdict builtins ceval_gil"
                " gil_state gil_enabled gil_locked gil_holder",
            ),
            _THREAD,
            ("frame", "size previous executable instr_ptr localsplus owner"),
            ("code", _CODE_FIELDS),
            *_OBJECTS,
            *_MORE_OBJECTS,
        ),
        owner_cstack=3,
        pointer_tag_mask=0,
    ),
    (3, 14): Published(
        sections=(
            _HEAD,
            _RUNTIME,
            (
                "interpreter",
                "size id next threads_head threads_main gc imports_modules sysdict builtins"
                " ceval_gil gil_state gil_enabled gil_locked gil_holder code_object_generation"
                " tlbc_generation",
            ),
            _THREAD,
            (
                "frame",
                "size previous executable instr_ptr localsplus owner stackpointer tlbc_index",
            ),
            ("code", f"{_CODE_FIELDS} tlbc"),
            *_OBJECTS,
            ("set", "size used table mask"),
            *_MORE_OBJECTS,
            ("gc", "size collecting"),
            ("generator", "size gi_name gi_iframe gi_frame_state"),
            ("llist", "next prev"),
            ("debugger", "eval_breaker support enabled pending_call script_path script_path_size"),
        ),
        owner_cstack=3,
        pointer_tag_mask=3,
    ),
}
"""Versions whose offsets are read from `_PyRuntime` of the target."""

COOKIE: Final = b"xdebugpy"

_LARGEST_OFFSET: Final = 4096


def choose(
    version: tuple[int, int] | None,
    read_runtime: Callable[[int], bytes | None],
    *,
    free_threaded: bool = False,
    debug: bool = False,
) -> tuple[PythonLayout, str | None]:
    """The layout of a CPython version, and why stacks are off; None if they are not.

    `read_runtime(n)` gives the first n bytes of the target's `_PyRuntime`, or None.
    """
    if version is None:
        return PythonLayout(), "no CPython was found in the target: no stacks"
    name = ".".join(map(str, version))
    off = PythonLayout(version=version[0] * 256 + version[1])
    if free_threaded:
        return off, f"CPython {name} is a free-threaded build: no stacks"
    if debug:
        return off, f"CPython {name} is a debug build: no stacks"
    if version in TABLE:
        return TABLE[version], None
    if version not in PUBLISHED:
        return off, f"CPython {name} is not in the table of layouts: no stacks"
    raw = read_runtime(8 * _count(PUBLISHED[version]))
    layout = from_debug_offsets(version, raw) if raw else None
    if layout is None:
        return off, f"the offsets that CPython {name} publishes are not readable: no stacks"
    return layout, None


def _count(published: Published) -> int:
    return sum(len(fields.split()) for _, fields in published.sections)


def from_debug_offsets(version: tuple[int, int], raw: bytes) -> PythonLayout | None:
    """The layout that a 3.13+ interpreter publishes; None if `raw` is not that, or implausible."""
    published = PUBLISHED[version]
    at = _published_offsets(version, raw)
    if at is None or at["free_threaded"]:
        return None
    layout = PythonLayout(
        version=version[0] * 256 + version[1],
        enabled=1,
        tstate_frame=at["thread.current_frame"],
        frame_back=at["frame.previous"],
        frame_code=at["frame.executable"],
        frame_instr=at["frame.instr_ptr"],
        frame_locals=at["frame.localsplus"],
        frame_owner=at["frame.owner"],
        owner_cstack=published.owner_cstack,
        pointer_tag_mask=published.pointer_tag_mask,
        code_name=at["code.name"],
        code_qualname=at["code.qualname"],
        code_filename=at["code.filename"],
        code_firstlineno=at["code.firstlineno"],
        code_linetable=at["code.linetable"],
        code_instructions=at["code.code_adaptive"],
        ob_type=at["object.ob_type"],
        unicode_length=at["unicode.length"],
        unicode_state=at["unicode.state"],
        unicode_ascii_data=at["unicode.asciiobject_size"],
        bytes_size=at["bytes.ob_size"],
        bytes_data=at["bytes.ob_sval"],
        # not published: a length and a pointer follow what an ASCII string has
        unicode_data=at["unicode.asciiobject_size"] + 16,
    )
    return layout if _plausible(layout) else None


def _published_offsets(version: tuple[int, int], raw: bytes) -> dict[str, int] | None:
    """Every number by section and field; None if `raw` is not what `version` publishes."""
    published = PUBLISHED[version]
    if len(raw) < 8 * _count(published) or raw[:8] != COOKIE:
        return None
    numbers = iter(np.frombuffer(raw, "<u8", _count(published)).tolist())
    at = {
        f"{section}.{field}".lstrip("."): next(numbers)
        for section, fields in published.sections
        for field in fields.split()
    }
    return at if at["version"] >> 16 == version[0] * 256 + version[1] else None


def _plausible(layout: PythonLayout) -> bool:
    """Whether every offset lies where an object of CPython could have a field."""
    offsets = (
        getattr(layout, field.name)
        for field in PYTHON_LAYOUT.fields
        if field.type == "<i4" and not field.name.startswith("pad")
    )
    return all(-1 <= offset < _LARGEST_OFFSET for offset in offsets)


# ------------------------------------------------------------------------- scripts from outside


@dataclass(frozen=True, slots=True)
class RemoteExecLayout:
    """Where an interpreter takes a script from another process (PEP 768). All are offsets."""

    interpreters_head: int
    """In `_PyRuntime`; the list goes on at `interpreter_next`."""
    interpreter_next: int
    interpreter_id: int
    """Signed 64-bit; the main interpreter has 0."""
    enabled: int
    """In the interpreter: an int, 1 unless it was started with remote debugging off."""
    threads_main: int
    """In the interpreter: its main thread's state."""
    eval_breaker: int
    """In the thread's state: a word; one of its bits sends the thread to look for a script."""
    pending_call: int
    """In the thread's state: an int, 1 while a script waits."""
    script_path: int
    """In the thread's state."""
    script_path_size: int


def remote_exec(version: tuple[int, int], raw: bytes) -> RemoteExecLayout | None:
    """The layout that an interpreter publishes; None before 3.14 and where it is implausible."""
    at = _published_offsets(version, raw) if version in PUBLISHED else None
    if at is None or "debugger.support" not in at:
        return None
    support = at["debugger.support"]
    layout = RemoteExecLayout(
        interpreters_head=at["runtime.interpreters_head"],
        interpreter_next=at["interpreter.next"],
        interpreter_id=at["interpreter.id"],
        enabled=at["debugger.enabled"],
        threads_main=at["interpreter.threads_main"],
        eval_breaker=at["debugger.eval_breaker"],
        pending_call=support + at["debugger.pending_call"],
        script_path=support + at["debugger.script_path"],
        script_path_size=at["debugger.script_path_size"],
    )
    return layout if 64 <= layout.script_path_size <= 1 << 16 else None
