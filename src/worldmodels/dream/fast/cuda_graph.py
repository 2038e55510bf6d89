"""CUDA graphs: GPU work that is recorded once and replayed, without Python and launch costs for each operation."""

from collections.abc import Callable

import torch

from worldmodels.core.events import say


class CudaGraph:
    """Runs ``work``, a function that changes tensors in place: on a GPU as a CUDA graph, elsewhere as a plain call.

    ``work`` must do the same every time: it reads and writes the same tensors, reads no value back from the device,
    copies nothing from the CPU, and no shape depends on a value. The first call on a GPU runs normally on a side
    stream, the warm-up that PyTorch requires; the second call records the graph. If that fails, a warning is shown and
    the work is always run operation by operation, with the same results.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warm, self._fails = False, False

    def __call__(self, work: Callable[[], object]) -> None:
        """Run the work once."""
        if self._device.type != "cuda" or self._fails:
            work()
            return
        with torch.cuda.device(self._device):
            if not self._warm:
                self._warm_up(work)
                return
            if self._graph is None:
                self._record(work)
            if self._graph is None:
                work()
            else:
                self._graph.replay()

    def _warm_up(self, work: Callable[[], object]) -> None:
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            work()
        here.wait_stream(aside)
        self._warm = True

    def _record(self, work: Callable[[], object]) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            # The outer context restores the current stream, which the inner one does not do when it fails.
            with (
                torch.cuda.stream(torch.cuda.current_stream()),
                torch.cuda.graph(graph, capture_error_mode="thread_local"),
            ):
                work()
        except RuntimeError as error:
            self._fails = True
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            say(f"warning: dreams run without CUDA graphs, which makes them slower: {reason}")
        else:
            self._graph = graph
