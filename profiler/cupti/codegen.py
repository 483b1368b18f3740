"""The C side of what is known of CUPTI: `device_abi.h`, for the agent and the simulated stack."""

from __future__ import annotations

import re

from gputap.profiler.cupti import abi
from gputap.profiler.cupti.callbacks import CALLS, Group

_TYPES = {
    "<u1": "uint8_t",
    "<u2": "uint16_t",
    "<u4": "uint32_t",
    "<u8": "uint64_t",
    "<i4": "int32_t",
    "<i8": "int64_t",
}


def _upper(name: str) -> str:
    """`CamelCase`, `camelCase` and `snake_case` to `UPPER_CASE`; `gridX` to `GRID_X`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()


def _enums() -> list[str]:
    lines = []
    for enum, prefix in (
        (abi.ActivityKind, "KIND"),
        (abi.MemcpyKind, "COPY"),
        (abi.MemoryKind, "MEMORY"),
        (abi.SynchronizationType, "SYNC"),
        (abi.OverheadKind, "OVERHEAD"),
        (abi.Result, "RESULT"),
        (Group, "GROUP"),
    ):
        lines.append("enum {")
        lines += [f"  CUPTI_ABI_{prefix}_{m.name} = {int(m)}," for m in enum]
        lines += ["};", ""]
    return lines


def _record(record: abi.Record) -> list[str]:
    """Offset and type of every field: `CUPTI_ABI_KERNEL_START`, `CUPTI_ABI_KERNEL_START_T`."""
    lines = [f"/* {record.struct} */"]
    for field in record.fields:
        name = f"CUPTI_ABI_{record.name.upper()}_{_upper(field.name)}"
        lines.append(f"#define {name} {field.offset}")
        lines.append(f"#define {name}_T {_TYPES[field.type]}")
    return [*lines, ""]


def _sizes() -> list[str]:
    """`cupti_abi_record_size(kind, version)`, version = major * 100 + minor; 0 = unknown kind."""
    lines = [
        "/* Bytes of a record of CUPTI `version` (major * 100 + minor); 0 = unknown kind. */",
        "static inline uint32_t cupti_abi_record_size(uint32_t kind, uint32_t version) {",
        "  switch (kind) {",
    ]
    for record in abi.RECORDS:
        lines += [f"  case CUPTI_ABI_KIND_{kind.name}:" for kind in record.kinds]
        for (major, minor), size in reversed(record.sizes[1:]):
            lines.append(f"    if (version >= {major * 100 + minor}) return {size};")
        lines.append(f"    return {record.sizes[0][1]};")
    return [*lines, "  default:", "    return 0;", "  }", "}", ""]


def _calls() -> list[str]:
    lines = [
        "/* The calls that are recorded: domain (1 driver, 2 runtime), id, what it does. */",
        "struct cupti_abi_call {",
        "  uint16_t domain, cbid, group;",
        "};",
        f"enum {{ CUPTI_ABI_CALLS = {len(CALLS)} }};",
        "static const struct cupti_abi_call cupti_abi_calls[CUPTI_ABI_CALLS] = {",
    ]
    lines += [
        f"    {{{int(c.domain)}, {c.cbid}, CUPTI_ABI_GROUP_{c.group.name}}}, /* {c.name} */"
        for c in CALLS
    ]
    return [*lines, "};", ""]


def c_header() -> str:
    """The whole of `device_abi.h`."""
    lines = [
        "/* Generated from profiler/cupti/ by `make gen`. Do not edit. */",
        "#ifndef GPUTAP_CUPTI_ABI_H",
        "#define GPUTAP_CUPTI_ABI_H",
        "#include <stdint.h>",
        "",
        *_enums(),
    ]
    for record in abi.RECORDS:
        lines += _record(record)
    return "\n".join([*lines, *_sizes(), *_calls(), "#endif", ""])
