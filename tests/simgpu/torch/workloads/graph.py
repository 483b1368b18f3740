"""Greedy decoding by a small GPT: one CUDA graph, replayed once a token.

A step is one replay. The graph holds the whole model, the choice of the next token and the shift of
the window; the host reads the chosen token of each step.
"""

from __future__ import annotations

import torch
from gpt import GPT, LENGTH
from simrun import SimRun, parser


def decode(model: torch.nn.Module, window: torch.Tensor, chosen: torch.Tensor) -> None:
    """One token: into `chosen`, and at the end of `window`."""
    token = model(window)[:, -1].argmax(-1, keepdim=True)
    chosen.copy_(token)
    window.copy_(torch.cat([window[:, 1:], token], 1))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--eager", action="store_true", help="the same without a graph")
    chosen_options = options.parse_args()
    with SimRun(chosen_options) as run, torch.no_grad():
        model = GPT().to(run.device).eval()
        start = torch.arange(LENGTH).unsqueeze(0)
        window = start.to(run.device)
        token = torch.zeros(1, 1, dtype=torch.long).to(run.device)
        graph = None
        if not chosen_options.eager and run.device.type != "cpu":
            side = torch.simcuda.Stream()
            side.wait_stream(torch.simcuda.current_stream())
            with torch.simcuda.stream(side):
                decode(model, window, token)
            torch.simcuda.current_stream().wait_stream(side)
            graph = torch.simcuda.CUDAGraph()
            with torch.simcuda.graph(graph):
                decode(model, window, token)
            window.copy_(start)
        for _ in run:
            if graph is not None:
                graph.replay()
            else:
                decode(model, window, token)
            run.record(token)


if __name__ == "__main__":
    main()
