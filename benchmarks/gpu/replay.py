"""Work as replays of a CUDA graph."""

from dataclasses import replace
from typing import Any

import torch

from vtfast.bench.measure import Way


def replayed(way: Way) -> Way:
    """The same as replays of a CUDA graph that is captured in the first run."""
    graph: torch.cuda.CUDAGraph | None = None
    results: Any = None

    def run() -> Any:
        nonlocal graph, results
        if graph is None:
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(3):
                    way.run()
            torch.cuda.current_stream().wait_stream(aside)
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured):
                results = way.run()
            graph = captured
        graph.replay()
        return results

    return replace(way, run=run)
