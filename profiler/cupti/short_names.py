"""A kernel's name in one line of a table: what tells it apart, without what is the same for all.

Namespaces, results, parameters, vector widths, offset calculators and wrappers go; functors, types
and tile sizes stay. Where more had to go, four digits of a checksum still tell two names apart.
"""

from __future__ import annotations

import re
from typing import Final
from zlib import crc32

from gputap.profiler.cupti.cxx_text import name_and_arguments, split, without_parameters

MAX_SHORT: Final = 96
_MAX_READ: Final = 3072
"""Of longer names only so much is looked at. Names in names take time by the square of it."""

_FUNCTOR_TELLS: Final = re.compile(
    r"elementwise_kernel|reduce_kernel|multi_tensor_apply_kernel|_grid_stride_kernel|"
    r"_with_index|index_kernel|scan_.*_kernel"
)
"""Kernels of PyTorch that do what their functor does: numbers and helpers are left out."""

_HELPER: Final = re.compile(
    r"[aA]rray|integral_constant|(Trivial)?OffsetCalculator|(Load|Store)With\w+|"
    r"(TensorList|TensorListScalarList|FusedOptimizerTensorList)Metadata|Flash_kernel_traits|"
    r"\w*Policy\d*|cublas\w+Params|TensorInfo|NullType"
)
"""Template arguments that only help, by their last name."""

_TYPED: Final = {"BinaryFunctor", "AUnaryFunctor", "BUnaryFunctor"}
"""Functors around a functor, their last argument; the others are the types in memory."""

_LAST: Final = {"func_wrapper_t", "_cuda_scatter_gather_internal_kernel"}
"""What stands around something else, its last argument."""

_SAYS_NOTHING: Final = {"kernel", "globalKernel", "trampoline_kernel", "kernel_impl", "run"}
"""Names that need the namespace they are in."""

_FIRST: Final = {
    "gpu_kernel_impl",
    "gpu_kernel_impl_nocast",
    "gpu_kernel_multiple_outputs",
    "enable_sm80_to_sm89",
    "enable_sm90",
    "enable_sm90_or_later",
    "enable_sm100_only",
    "Kernel",
    "Kernel2",
    "device_kernel",
    "kernel_trampoline",
}
"""What stands around something else, which is its first argument, and says nothing itself."""

_VALUE: Final = re.compile(r"-?\d+u?l?l?|true|false")
_ENUMERATION: Final = re.compile(r"\((?:[\w:]|\(anonymous namespace\))+\)(-?\d+)")

_INLINE: Final = re.compile(r"^Flash_(?:fwd|bwd)_kernel_traits$")
"""Of these the arguments stand where they stood."""

_BOILERPLATE: Final = re.compile(
    r"(?:_execute)?(?:_segment_k_off|_segment_k_on|_split_k)?_kernel__5x_cublas(?:Lt|lt)?$|"
    r"_execute(?:_split_k)?_kernel_cudnn(?:_infer|_train)?$"
)
_TENSILE: Final = re.compile(
    r"^(Cijk_[A-Za-z]+_[A-Za-z]+_[A-Z0-9]+(?:_BH)?)\w*?_(MT\d+x\d+x\d+)(_MI[\dx]+)?"
)


def short_name(name: str) -> str:
    """The short form of a demangled name; of an ordinary short name the name itself."""
    text = name[:_MAX_READ].removeprefix("void ")
    if text.startswith("Cijk_"):
        return _tensile(name)
    if not re.search(r"[<(:]", text):
        return _cut(_BOILERPLATE.sub("", text), name)
    try:
        short = _kernel(without_parameters(text), 9)
        for depth in (3, 2, 1):
            if len(short) <= MAX_SHORT:
                return short
            short = f"{_kernel(without_parameters(text), depth)}~{_checksum(name)}"
        return _cut(short, name)
    except RecursionError:  # hundreds of names in names: nobody's kernel
        return _cut(text, name)


def _checksum(name: str) -> str:
    return f"{crc32(name.encode('utf-8', 'replace')) & 0xFFFF:04x}"


def _cut(short: str, name: str) -> str:
    return short if len(short) <= MAX_SHORT else f"{short[: MAX_SHORT - 5]}~{_checksum(name)}"


def _tensile(name: str) -> str:
    """Problem, macro tile and matrix instruction of a Tensile kernel."""
    found = _TENSILE.match(name[:512])
    if not found:
        return _cut(name, name)
    return f"{found[1]}_{found[2]}{found[3] or ''}~{_checksum(name)}"


def _kernel(path: str, depth: int) -> str:
    """The short form of a kernel without its parameters."""
    components = split(path, "::")
    name, arguments = name_and_arguments(components[-1])
    if name in _FIRST and arguments:
        return _argument(arguments[0], depth)
    if name in _SAYS_NOTHING:
        scopes = [one for one in components[:-1] if one not in ("impl", "detail", "internal")]
        name = "::".join([*(name_and_arguments(one)[0] for one in scopes[-1:]), name])
    if _FUNCTOR_TELLS.search(name):
        arguments = [a for a in arguments if not re.fullmatch(r"-?\d+\w*|unsigned int|int", a)]
    return _with_arguments(name, arguments, depth)


def _with_arguments(name: str, arguments: list[str], depth: int) -> str:
    if depth <= 0:
        return name
    kept: list[str] = []
    for argument in arguments:
        if _HELPER.fullmatch(name_and_arguments(split(argument, "::")[-1])[0]):
            continue
        short = _argument(argument, depth - 1)
        # `<float, float, float>` says as much as `<float>`; of values each counts.
        if short and not (kept and kept[-1] == short and not _VALUE.fullmatch(short)):
            kept.append(short)
    if not kept:
        return name
    return f"{name}<{', '.join(kept)}>"


def _argument(text: str, depth: int) -> str:
    """The short form of a template argument."""
    text = text.strip()
    if text.startswith("&(") and text.endswith(")"):  # a function
        text = without_parameters(text[2:-1])
    enumeration = _ENUMERATION.fullmatch(text)
    if enumeration:
        return enumeration[1]
    bare = _bare(text)
    tail = text[len(bare) :]
    components = split(bare, "::")
    at = next((i for i, part in enumerate(components) if part.startswith("{lambda(")), -1)
    if at >= 0:
        return _lambda(components, at, depth)
    name, arguments = name_and_arguments(components[-1])
    if name in _TYPED and len(arguments) > 1:
        return _typed(arguments, depth)
    if name in _LAST and arguments:
        return _argument(arguments[-1], depth)
    if name in _FIRST and arguments:
        return _argument(arguments[0], depth)
    if name == "ReduceOp" and len(arguments) > 1:
        return _argument(arguments[1], depth)
    if _INLINE.match(name):
        return _with_arguments("", arguments, max(depth, 1))[1:-1]
    if len(components) > 1 and name in ("Params", "Arguments", "type"):
        name = f"{name_and_arguments(components[-2])[0]}::{name}"
    return _with_arguments(name.lstrip("&"), arguments, depth) + tail


def _bare(text: str) -> str:
    """A type without the `const*&` behind it."""
    while True:
        shorter = text.rstrip("*&").removesuffix(" const").removesuffix(" volatile")
        if shorter == text:
            return text
        text = shorter


def _typed(arguments: list[str], depth: int) -> str:
    """A functor with the types that it reads and writes, not those that it reckons in."""
    inner = _argument(arguments[-1], 0)
    if "(" in inner:  # a lambda, which has its types
        return _argument(arguments[-1], depth)
    return _with_arguments(inner, arguments[:-1], depth)


def _lambda(components: list[str], at: int, depth: int) -> str:
    """A lambda by the function that it is in, and what it takes: that tells the type."""
    takes = _takes(components[-1].partition("(")[2].rpartition(")")[0])
    if at == 0:
        return f"lambda({takes})"
    owner = components[at - 1]
    name, arguments = name_and_arguments(_before_parameters(owner))
    if name in _FIRST and arguments:
        return _argument(arguments[0], depth)
    if owner.startswith("operator()") and at > 1:
        # A functor class: its name, and what the call was made for.
        name, arguments = name_and_arguments(components[at - 2])
        for_what = re.match(r"operator\(\)<(.*)>\(", owner)
        arguments = [*arguments, *(split(for_what[1], ",") if for_what else [])]
        if name in _LAST and arguments:
            return _argument(arguments[-1], depth)
        return _with_arguments(name, arguments, depth)
    if takes.startswith("curand"):
        return _with_arguments(name, arguments[:1], depth)
    return f"{name}({takes})"


def _takes(parameters: str) -> str:
    shorts: list[str] = []
    for one in split(parameters, ","):
        short = _argument(one, 1) if one.strip() else ""
        if short and short not in shorts:
            shorts.append(short)
    return ", ".join(shorts)


def _before_parameters(component: str) -> str:
    depth = 0
    for at, letter in enumerate(component):
        if letter == "(" and depth == 0 and at:
            return component[:at]
        depth += (letter == "<") - (letter == ">")
    return component
