"""Work on a GPU that is recorded once and replayed: no launch and no line of Python for each of its operations."""

from collections.abc import Callable

import torch

from worldmodels.core.events import say


class CudaGraph:
    """Call it with ``work``, which changes tensors in place: a GPU does it as a CUDA graph, others call it.

    ``work`` is the same every time: it reads and writes the same tensors, asks the device for no value, copies nothing
    from the CPU and has shapes that depend on no value. The first call on a GPU is ordinary work on a stream of its
    own, in which libraries set themselves up (as PyTorch asks for); the second one records. Where recording fails, one
    line says so and the work is done operation by operation, with the same results.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warm, self._fails = False, False

    def __call__(self, work: Callable[[], object]) -> None:
        """Do the work once."""
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
            # The outer context brings the stream back where the inner one, failing, does not.
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
