"""Write what is generated from the schema: the C header and the schema's page in the docs.

`python -m gputap.profiler.schema_codegen` writes the files, `--check` fails when one is stale.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from gputap.profiler import schema
from gputap.profiler.cupti import codegen as cupti_codegen

ROOT = Path(__file__).resolve().parent.parent
C_TYPES = {
    "<u1": "uint8_t",
    "<u2": "uint16_t",
    "<u4": "uint32_t",
    "<u8": "uint64_t",
    "<i4": "int32_t",
    "<i8": "int64_t",
}


def snake(name: str) -> str:
    """`EventRecord` to `event_record`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def c_struct(struct: schema.Struct) -> list[str]:
    """C declaration of `struct` with its size and every offset asserted."""
    c_name = f"gputap_{snake(struct.name)}"
    lines = [f"/* {struct.doc} */", f"struct {c_name} {{"]
    for field in struct.fields:
        count = f"[{field.count}]" if field.count > 1 else ""
        lines.append(f"  {C_TYPES[field.type]} {field.name}{count}; /* {field.doc} */")
    lines += ["};", f"GPUTAP_ASSERT(sizeof(struct {c_name}) == {struct.size});"]
    for name, offset in schema.layout(struct).items():
        lines.append(f"GPUTAP_ASSERT(offsetof(struct {c_name}, {name}) == {offset});")
    return [*lines, ""]


def c_header() -> str:
    """The whole of `wire.h`."""
    lines = [
        "/* Generated from profiler/schema.py by `make gen`. Do not edit. */",
        "#ifndef GPUTAP_WIRE_H",
        "#define GPUTAP_WIRE_H",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "#ifdef __cplusplus",
        "#define GPUTAP_ASSERT(x) static_assert(x, #x)",
        "#else",
        "#define GPUTAP_ASSERT(x) _Static_assert(x, #x)",
        "#endif",
        f"#define GPUTAP_ABI_VERSION {schema.ABI_VERSION}u",
        f"#define GPUTAP_MAGIC {schema.MAGIC:#x}ull",
        f'#define GPUTAP_AGENT_MEMFD "{schema.AGENT_MEMFD}"',
        f'#define GPUTAP_CONTROL_MEMFD "{schema.CONTROL_MEMFD}"',
        "",
    ]
    for enum in schema.ENUMS:
        prefix = f"GPUTAP_{snake(enum.__name__).upper()}"
        lines += [f"enum gputap_{snake(enum.__name__)} {{"]
        lines += [f"  {prefix}_{member.name} = {int(member)}," for member in enum]
        lines += ["};", ""]
    for struct in schema.STRUCTS:
        lines += c_struct(struct)
    return "\n".join([*lines, "#endif", ""])


def markdown_page() -> str:
    """The whole of `docs/schema.md`."""
    lines = [
        "# Schema",
        "",
        "Generated from `profiler/schema.py` by `make gen`. Do not edit.",
        "",
        f"Shared-memory layout version {schema.ABI_VERSION}, "
        f"capture version {schema.CAPTURE_VERSION}.",
        "",
        "## Tables of a capture",
        "",
    ]
    for table in schema.TABLES:
        lines += [
            f"### {table.name}",
            "",
            table.doc,
            "",
            "| column | type | unit | meaning |",
            "|---|---|---|---|",
        ]
        lines += [f"| {c.name} | {c.type} | {c.unit} | {c.doc} |" for c in table.columns]
        lines += [""]
    lines += ["## Enumerations", ""]
    for enum in schema.ENUMS:
        lines += [f"### {enum.__name__}", "", "| id | name |", "|---|---|"]
        lines += [f"| {int(member)} | {member.name} |" for member in enum]
        lines += [""]
    lines += ["## Wire records", ""]
    for struct in schema.STRUCTS:
        lines += [f"### {struct.name} ({struct.size} bytes)", "", struct.doc, ""]
        lines += ["| offset | field | type | unit | meaning |", "|---|---|---|---|---|"]
        offsets = schema.layout(struct)
        for f in struct.fields:
            kind = f.type[1:] + (f"[{f.count}]" if f.count > 1 else "")
            lines.append(f"| {offsets[f.name]} | {f.name} | {kind} | {f.unit} | {f.doc} |")
        lines += [""]
    return "\n".join(lines)


def generated() -> dict[Path, str]:
    """Every generated file and what it must hold."""
    return {
        ROOT / "injectors/library/native/wire.h": c_header(),
        ROOT / "injectors/library/native/device_abi.h": cupti_codegen.c_header(),
        ROOT / "docs/schema.md": markdown_page(),
    }


def main(arguments: list[str]) -> int:
    """Write, or with `--check` compare. Returns the exit code."""
    stale = [
        path for path, text in generated().items() if not path.exists() or path.read_text() != text
    ]
    if "--check" in arguments:
        for path in stale:
            print(f"stale: {path.relative_to(ROOT)}; run `make gen`", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(generated()[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
