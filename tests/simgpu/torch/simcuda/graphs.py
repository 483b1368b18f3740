"""CUDA graphs in the shape of torch.cuda's."""

from __future__ import annotations

import gc
from types import TracebackType

import torch

from simcuda import _load
from simcuda.streams import Stream, current_stream, set_stream, synchronize

backend = _load.backend()


class CUDAGraph:
    """One captured graph.

    A replay is one cudaGraphLaunch; the maths of the captured operators are then done again, on the
    same memory, so that results are right. The graph keeps alive all memory that it was captured
    with: there is no private pool, and temporaries inside a graph do not share memory.
    """

    def __init__(self) -> None:
        self._graph = backend.Graph()

    def capture_begin(self) -> None:
        """Begin to capture what the current stream, not the default one, is given."""
        self._graph.capture_begin()

    def capture_end(self) -> None:
        """End the capture and instantiate the graph."""
        self._graph.capture_end()

    def replay(self) -> None:
        """Launch the graph on the current stream."""
        self._graph.replay()

    def reset(self) -> None:
        """Destroy the graph and let go of its memory."""
        self._graph.reset()

    @property
    def calls(self) -> int:
        """How many host computations one replay does."""
        return int(self._graph.calls)


class graph:
    """Capture a block: `with graph(g): ...`, on a stream of its own."""

    def __init__(self, cuda_graph: CUDAGraph, stream: torch.Stream | None = None) -> None:
        self._graph = cuda_graph
        self._stream = Stream() if stream is None else stream

    def __enter__(self) -> None:
        synchronize()
        gc.collect()  # else a tensor that dies in the capture would call the runtime there
        self._before = current_stream()
        self._stream.wait_stream(self._before)
        set_stream(self._stream)
        self._graph.capture_begin()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._graph.capture_end()
        finally:
            set_stream(self._before)
