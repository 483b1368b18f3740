"""Arrow columns from numpy buffers, without a copy and without `pyarrow.array`.

`pyarrow.array` imports pandas on first use wherever it is installed: 40 MB and half a second that a
collector in a sidecar must not pay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gputap.profiler import schema

if TYPE_CHECKING:
    import pyarrow as pa

Missing = npt.NDArray[np.bool_]


def numbers(values: npt.NDArray[Any], missing: Missing | None = None) -> pa.Array:
    """A column of a contiguous integer or float array; null where `missing`."""
    import pyarrow as pa

    bitmap, nulls = _validity(missing)
    data = pa.py_buffer(np.ascontiguousarray(values))
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [bitmap, data], nulls)


def booleans(values: npt.NDArray[np.bool_], missing: Missing | None = None) -> pa.Array:
    """A column of truth values; null where `missing`."""
    import pyarrow as pa

    bitmap, nulls = _validity(missing)
    data = pa.py_buffer(np.packbits(values, bitorder="little"))
    return pa.Array.from_buffers(pa.bool_(), len(values), [bitmap, data], nulls)


def strings(values: Sequence[str]) -> pa.Array:
    """A column of strings. Text that is no Unicode is replaced by question marks."""
    import pyarrow as pa

    raw = [value.encode("utf-8", "replace") for value in values]
    offsets = np.zeros(len(raw) + 1, np.int32)
    np.cumsum([len(text) for text in raw], out=offsets[1:])
    data = pa.py_buffer(b"".join(raw))
    return pa.Array.from_buffers(pa.string(), len(raw), [None, pa.py_buffer(offsets), data], 0)


def dictionary(codes: npt.NDArray[np.int32], values: pa.Array) -> pa.DictionaryArray:
    """A column of strings by code into `values`; null where the code is negative."""
    import pyarrow as pa

    indices = numbers(codes, codes < 0)
    return pa.DictionaryArray.from_arrays(indices, values, safe=False)


def texts(values: Iterable[str | None]) -> pa.DictionaryArray:
    """A dictionary column from Python strings, equal ones sharing a code."""
    code_of: dict[str, int] = {}
    codes = [-1 if v is None else code_of.setdefault(v, len(code_of)) for v in values]
    return dictionary(np.array(codes, np.int32), strings(list(code_of)))


def table(declared: schema.Table, columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """A small table from Python values by column; None is null, an absent column all null."""
    import pyarrow as pa

    count = len(next(iter(columns.values()), ()))
    target = schema.arrow_schema(declared)
    arrays = [_column(f.type, columns.get(f.name, [None] * count)) for f in target]
    return pa.Table.from_arrays(arrays, schema=target)


def _column(kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return texts(values)
    missing = np.array([value is None for value in values], bool)
    filled = [0 if value is None else value for value in values]
    if pa.types.is_boolean(kind):
        return booleans(np.array(filled, bool), missing)
    # Arrow's names are numpy's; kind.to_pandas_dtype() needs pandas in older pyarrow.
    return numbers(np.array(filled, np.dtype(str(kind))), missing)


def _validity(missing: Missing | None) -> tuple[pa.Buffer | None, int]:
    import pyarrow as pa

    nulls = 0 if missing is None else int(np.count_nonzero(missing))
    if missing is None or not nulls:
        return None, 0
    return pa.py_buffer(np.packbits(~missing, bitorder="little")), nulls
