"""What collectives should give, by numpy: in the order of ranks, rounded at each step."""

from __future__ import annotations

import numpy as np

from tests.simgpu.nccl.library import DTYPES, Array, Op, Type


def widen(kind: Type, values: Array) -> Array:
    """Values to calculate with: bfloat16 is kept as the upper halves of floats."""
    if kind is Type.BFLOAT16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def narrow(kind: Type, values: Array) -> Array:
    """To the nearest value of the type, ties to even."""
    if kind is Type.BFLOAT16:
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)
    return values.astype(DTYPES[kind])


def contribution(kind: Type, rank: int, count: int) -> Array:
    """What rank `rank` brings: the same on each process that asks."""
    random = np.random.default_rng([rank, kind, count])
    if kind in (Type.FLOAT8E4M3, Type.FLOAT8E5M2):
        return random.integers(0, 256, count).astype(np.uint8)
    if kind >= Type.FLOAT16:
        return narrow(kind, random.standard_normal(count) * 3)
    limits = np.iinfo(DTYPES[kind])
    return random.integers(limits.min, limits.max, count, DTYPES[kind], endpoint=True)


def _step(op: Op, a: Array, b: Array) -> Array:
    with np.errstate(over="ignore"):
        if op is Op.PROD:
            return np.asarray(a * b)
        if op in (Op.MAX, Op.MIN):
            return np.maximum(a, b) if op is Op.MAX else np.minimum(a, b)
        return np.asarray(a + b)


def scale(kind: Type, values: Array, factor: float) -> Array:
    one = widen(kind, narrow(kind, np.array([factor])))
    with np.errstate(over="ignore"):
        return narrow(kind, np.asarray(widen(kind, values) * one))


def reduce(kind: Type, op: Op, contributions: list[Array], factor: float | None = None) -> Array:
    """`factor`: each contribution is multiplied by it first."""
    ranks = len(contributions)
    if op is Op.AVG and kind >= Type.FLOAT16:
        factor = 1 / ranks
    if factor is not None:
        contributions = [scale(kind, values, factor) for values in contributions]
    total = contributions[0]
    for values in contributions[1:]:
        total = narrow(kind, _step(op, widen(kind, total), widen(kind, values)))
    if op is Op.AVG and kind < Type.FLOAT16:
        quotients = np.abs(total.astype(object)) // ranks * np.sign(total.astype(object))
        return quotients.astype(total.dtype)
    return total
