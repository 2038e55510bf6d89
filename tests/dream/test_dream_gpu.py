"""What dreams do on a GPU, tried on a CPU: numbers computed from seed and step, and work that is recorded."""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from dream_agents import CPU, dreamer, take
from worldmodels.dream.dreams import Dreams
from worldmodels.dream.fast import counter_based
from worldmodels.dream.fast.counter_based import CounterBasedStreams, normals, philox, uniforms
from worldmodels.dream.fast.cuda_graph import CudaGraph

CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    ("counter", "key", "wanted"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_published_words(counter: list[int], key: list[int], wanted: list[int]) -> None:
    a, b, c, d, low, high = (torch.tensor([word]) for word in counter + key)
    assert [int(word) for word in philox((a, b, c, d), (low, high))] == wanted


def test_words_become_uniform_and_normal_numbers_within_their_bounds() -> None:
    ends = torch.tensor([0, 0xFFFFFFFF])
    assert uniforms(ends).tolist() == [0.0, 1 - 2.0**-24]
    extremes = normals(torch.cartesian_prod(ends, ends))
    assert extremes.isfinite().all() and 6.7 < extremes.abs().max() < 6.8


def test_computed_numbers_are_uniform_normal_and_independent_of_seed_step_and_place() -> None:
    streams = CounterBasedStreams([0, 1, 2, 1 << 40, (1 << 62) + 1, 12345], 32, CPU)
    numbers = take(streams, 2000)  # (steps, seeds, 65)
    uniform, normal = np.concatenate([numbers[..., :32], numbers[..., -1:]], axis=-1), numbers[..., 32:64]
    shares = np.histogram(uniform, 64, (0, 1))[0] / uniform.size
    assert np.abs(shares * 64 - 1).max() < 5 * np.sqrt(64 / uniform.size)
    bounds = np.array([-2.5758, -1.6449, -0.6745, 0.0, 0.6745, 1.6449, 2.5758])
    below = (normal.reshape(-1, 1) < bounds).mean(axis=0)
    np.testing.assert_allclose(below, [0.005, 0.05, 0.25, 0.5, 0.75, 0.95, 0.995], atol=4e-3)
    flat = np.concatenate([uniform * np.sqrt(12) - np.sqrt(3), normal], axis=-1)  # all of mean 0 and variance 1
    assert abs(flat.var() - 1) < 0.01
    places = flat.reshape(-1, 65).T
    off = np.corrcoef(places) - np.eye(65)
    assert np.abs(off).max() < 5 / np.sqrt(places.shape[1])
    for one, other in ((flat[1:], flat[:-1]), (flat[:, 1:], flat[:, :-1]), (flat[1:, 1:], flat[:-1, :-1])):
        assert abs((one * other).mean()) < 5 / np.sqrt(one.size)
        assert abs((one**2 * other**2).mean() - 1) < 20 / np.sqrt(one.size)


def test_computed_numbers_belong_to_the_seed_and_not_to_the_batch() -> None:
    together, alone = CounterBasedStreams([3, 8, 5], 5, CPU), CounterBasedStreams([8], 5, CPU)
    start, own = together.start(100), alone.start(100)
    assert start[0][1] == own[0][0] and torch.equal(start[1][1], own[1][0])
    np.testing.assert_array_equal(take(together, 70)[:, 1], take(alone, 70)[:, 0])


def test_every_recorded_start_is_taken_about_as_often() -> None:
    which, normal = CounterBasedStreams(range(5000), 4, CPU).start(10)
    counts = np.bincount(which.numpy(), minlength=10)
    assert len(counts) == 10 and np.abs(counts - 500).max() < 100
    assert abs(normal.mean()) < 0.03 and abs(normal.std() - 1) < 0.03


def test_rows_with_the_same_seed_share_their_computed_numbers() -> None:
    shared, plain = CounterBasedStreams([3, 8, 3], 4, CPU, shared=True), CounterBasedStreams([3, 8], 4, CPU)
    assert torch.equal(shared.start(9)[1], plain.start(9)[1][[0, 1, 0]])
    np.testing.assert_array_equal(take(shared, 40), take(plain, 40)[:, [0, 1, 0]])


@pytest.mark.parametrize("shared", [False, True])
def test_dropping_rows_changes_no_computed_number_of_the_others(shared: bool) -> None:
    kept, whole = (CounterBasedStreams([3, 8, 5, 8], 4, CPU, shared) for _ in range(2))
    wanted = take(whole, 45)
    np.testing.assert_array_equal(take(kept, 5), wanted[:5])
    kept.keep(torch.tensor([1, 3]))
    np.testing.assert_array_equal(take(kept, 40), wanted[5:, [1, 3]])


@pytest.mark.parametrize("after", [0, 5, 32, 40])
def test_a_restarted_row_sees_the_computed_numbers_of_its_new_seed(after: int) -> None:
    streams, fresh, other = (CounterBasedStreams(seeds, 4, CPU) for seeds in ([3, 8], [21], [3]))
    if after:
        take(streams, after)
    which, normal = streams.replace([1], [21], 9)
    wanted = fresh.start(9)
    assert torch.equal(which, wanted[0]) and torch.equal(normal, wanted[1])
    found = take(streams, 50)
    np.testing.assert_array_equal(found[:, 1], take(fresh, 50)[:, 0])
    np.testing.assert_array_equal(found[:, 0], take(other, after + 50)[after:, 0])


def test_numbers_are_the_same_in_whatever_portions_they_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = take(CounterBasedStreams([3, 8], 5, CPU), 60)
    monkeypatch.setattr(counter_based, "_AT_ONCE", 14)
    streams = CounterBasedStreams([3, 8], 5, CPU)
    portions = [numbers for steps in (1, 20, 39) for numbers in streams.ahead(steps)]
    np.testing.assert_array_equal(np.stack([torch.cat([u, n, e[:, None]], 1).numpy() for u, n, e in portions]), wanted)


def test_rows_whose_numbers_are_computed_stay_when_they_end_and_depend_on_their_seed() -> None:
    agent = dreamer(end_bias=-2.5)
    many, one = (Dreams(agent, dtype=torch.float32, streams=CounterBasedStreams) for _ in range(2))
    many.reset(range(8)), one.reset([5])
    over = torch.zeros(8, dtype=torch.bool)
    for step in range(25):
        actions = torch.rand(1, 3, generator=torch.Generator().manual_seed(step)).expand(8, 3)
        before = many.policy_inputs()
        (reward, ended), (own, own_end) = many.step(actions, over), one.step(actions[:1], over[5:6])
        assert torch.equal(many.policy_inputs()[over], before[over])
        torch.testing.assert_close(many.policy_inputs()[5:6], one.policy_inputs(), atol=1e-3, rtol=1e-3)
        if not over[5]:
            torch.testing.assert_close(reward[5:6], own, atol=1e-3, rtol=1e-3)
            assert torch.equal(ended[5:6], own_end)
        over = over | ended
    assert over.sum() > 4 and not over.all()
    last = many.policy_inputs()
    many.restart(over.nonzero()[:, 0], [100 + row for row in range(int(over.sum()))])
    fresh = many.policy_inputs()
    assert torch.equal(fresh[~over], last[~over])
    assert (fresh[over] != last[over]).any(dim=1).all() and (fresh[over][:, 6:] == 0).all()


class Graphs:
    """Stands in for ``torch.cuda``: what is done while recording is done again at every replay."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: bool = False) -> None:
        self.replays, self.fails = 0, fails
        nothing = contextlib.nullcontext
        stream = type("Stream", (), {"wait_stream": lambda self, other: None})
        for name, value in {
            "CUDAGraph": lambda: self,
            "graph": self.graph,
            "Stream": stream,
            "current_stream": stream,
            "stream": lambda _: nothing(),
            "device": lambda _: nothing(),
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    @contextlib.contextmanager
    def graph(self, graph: Any, **options: Any) -> Iterator[None]:
        """As ``torch.cuda.graph``."""
        yield
        if self.fails:
            raise RuntimeError("operation not permitted\nmore of it")

    def replay(self) -> None:
        """Count."""
        self.replays += 1


def test_a_gpu_works_first_records_then_and_replays_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, calls = Graphs(monkeypatch), list[int]()
    graph = CudaGraph(CUDA)
    for number in range(5):
        graph(partial(calls.append, number))
    assert calls == [0, 1] and cuda.replays == 4


def test_where_recording_fails_one_line_says_so_and_the_work_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cuda, calls = Graphs(monkeypatch, fails=True), list[int]()
    graph = CudaGraph(CUDA)
    for _ in range(4):
        graph(lambda: calls.append(1))
    assert len(calls) == 5 and cuda.replays == 0  # one of the calls was the attempt to record, which does nothing
    warned = capsys.readouterr().err.splitlines()
    assert len(warned) == 1 and "without CUDA graphs" in warned[0] and "operation not permitted" in warned[0]


def test_elsewhere_work_is_simply_done() -> None:
    calls, graph = list[int](), CudaGraph(CPU)
    for number in range(3):
        graph(partial(calls.append, number))
    assert calls == [0, 1, 2]
