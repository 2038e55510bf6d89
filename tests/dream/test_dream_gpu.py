"""What dreams do on a GPU, tried on a CPU: numbers computed from seed and step, and steps that can be recorded."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from test_dream import CPU, dream_along, dreamer, take
from worldmodels.agent import Agent
from worldmodels.controller.linear import Controllers
from worldmodels.dream.fast import counter_based as counted
from worldmodels.evolution import dream_fitness as returns
from worldmodels.dream.fast.batch import StandingBatch
from worldmodels.dream.fast.counter_based import CountedStreams, normals, philox, uniforms
from worldmodels.dream.dreams import Dreams
from worldmodels.dream.env import DreamVectorEnv
from worldmodels.dream.fast.cuda_graph import Replayed
from worldmodels.evolution.dream_fitness import DreamReturns

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
    streams = CountedStreams([0, 1, 2, 1 << 40, (1 << 62) + 1, 12345], 32, CPU)
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
    together, alone = CountedStreams([3, 8, 5], 5, CPU), CountedStreams([8], 5, CPU)
    start, own = together.start(100), alone.start(100)
    assert start[0][1] == own[0][0] and torch.equal(start[1][1], own[1][0])
    np.testing.assert_array_equal(take(together, 70)[:, 1], take(alone, 70)[:, 0])


def test_every_recorded_beginning_is_taken_about_as_often() -> None:
    which, normal = CountedStreams(range(5000), 4, CPU).start(10)
    counts = np.bincount(which.numpy(), minlength=10)
    assert len(counts) == 10 and np.abs(counts - 500).max() < 100
    assert abs(normal.mean()) < 0.03 and abs(normal.std() - 1) < 0.03


def test_rows_with_the_same_seed_share_their_computed_numbers() -> None:
    shared, plain = CountedStreams([3, 8, 3], 4, CPU, shared=True), CountedStreams([3, 8], 4, CPU)
    assert torch.equal(shared.start(9)[1], plain.start(9)[1][[0, 1, 0]])
    np.testing.assert_array_equal(take(shared, 40), take(plain, 40)[:, [0, 1, 0]])


@pytest.mark.parametrize("shared", [False, True])
def test_dropping_rows_changes_no_computed_number_of_the_others(shared: bool) -> None:
    kept, whole = (CountedStreams([3, 8, 5, 8], 4, CPU, shared) for _ in range(2))
    wanted = take(whole, 45)
    np.testing.assert_array_equal(take(kept, 5), wanted[:5])
    kept.keep(torch.tensor([1, 3]))
    np.testing.assert_array_equal(take(kept, 40), wanted[5:, [1, 3]])


@pytest.mark.parametrize("after", [0, 5, 32, 40])
def test_a_restarted_row_sees_the_computed_numbers_of_its_new_seed(after: int) -> None:
    streams, fresh, other = (CountedStreams(seeds, 4, CPU) for seeds in ([3, 8], [21], [3]))
    if after:
        take(streams, after)
    which, normal = streams.replace([1], [21], 9)
    wanted = fresh.start(9)
    assert torch.equal(which, wanted[0]) and torch.equal(normal, wanted[1])
    found = take(streams, 50)
    np.testing.assert_array_equal(found[:, 1], take(fresh, 50)[:, 0])
    np.testing.assert_array_equal(found[:, 0], take(other, after + 50)[after:, 0])


def test_numbers_are_the_same_in_whatever_portions_they_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = take(CountedStreams([3, 8], 5, CPU), 60)
    monkeypatch.setattr(counted, "_AT_ONCE", 14)
    streams = CountedStreams([3, 8], 5, CPU)
    portions = [numbers for steps in (1, 20, 39) for numbers in streams.ahead(steps)]
    np.testing.assert_array_equal(np.stack([torch.cat([u, n, e[:, None]], 1).numpy() for u, n, e in portions]), wanted)


def test_rows_of_an_environment_whose_numbers_are_computed_stay_when_they_end_and_depend_on_their_seed() -> None:
    agent = dreamer(end_bias=-2.0)
    envs = [DreamVectorEnv(count, agent, dtype=torch.float32) for count in (8, 1)]
    for env in envs:
        env._dreams = Dreams(agent, dtype=torch.float32, streams=CountedStreams)
    many, one = (dream_along(env, seeds, 40) for env, seeds in zip(envs, (range(8), [5]), strict=True))
    for together, alone in zip(many, one, strict=True):
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[5].astype(float), b[0].astype(float), atol=1e-3)
    ended = np.zeros(8, bool)
    for before, (observations, rewards, terminated, _) in pairwise(many):
        assert (observations[ended] == before[0][ended]).all() and (rewards[ended] == 0).all()
        ended |= terminated
    assert ended.sum() > 4
    fresh, _ = envs[0].reset(options={"reset_mask": ended})
    assert (fresh[~ended] == many[-1][0][~ended]).all() and (fresh[ended][:, 6:] == 0).all()


def as_on_a_gpu(agent: Agent) -> DreamReturns:
    """Evolution's measure with computed numbers and batches that stand still, in float32."""
    measure = DreamReturns(agent, 1.1, "sample")
    measure._dreams = Dreams(agent, 1.1, "sample", torch.float32, CountedStreams)
    return measure


def one_by_one(
    agent: Agent, controllers: np.ndarray, seeds: Sequence[int], steps: int, streams: Any = CountedStreams
) -> tuple[np.ndarray, int]:
    """What each controller earns in each dream, step after step."""
    found, lived = np.zeros((len(controllers), len(seeds))), 0
    dreams = Dreams(agent, 1.1, "sample", torch.float32, streams)
    for index, parameters in enumerate(torch.from_numpy(controllers).float()):
        dreams.reset(seeds)
        policy = Controllers(parameters[None], dreams.features().shape[1], agent.task.control_size)
        alive = np.ones(len(seeds), bool)
        for _ in range(steps):
            reward, ended = dreams.step(agent.task.dream_action(policy(dreams.features())))
            found[index] += np.where(alive, reward.numpy(), 0)
            lived += int(alive.sum())
            alive &= ~ended.numpy()
    return found, lived


@pytest.mark.parametrize("task", ["car-racing", "take-cover"])
@pytest.mark.parametrize("candidates", [3, 250])
def test_measuring_as_a_gpu_does_gives_what_single_steps_pay(
    task: str, candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returns, "_FEW", 8)  # so that even these few rows are halved
    monkeypatch.setattr(returns, "_EVERY", 8)
    agent = dreamer(task, end_bias=-2.5)
    controllers = np.random.default_rng(1).standard_normal((candidates, len(agent.controller)))
    measure, seeds = as_on_a_gpu(agent), [11, 12, 13, 12]
    found, steps = measure(controllers, seeds, 45)
    some = controllers[:: max(1, candidates // 3)]
    wanted, lived = one_by_one(agent, some, seeds, 45)
    np.testing.assert_allclose(found[:: max(1, candidates // 3)], wanted, atol=1e-2)
    assert candidates > 3 or steps == lived
    sizes = {key[1][0] for key in measure._standing}  # type: ignore[index]
    assert len(sizes) > 1 and max(sizes) == min(2048, 4 * candidates), "rows that ended were dropped"


def test_asking_after_every_step_or_after_many_gives_the_same_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = dreamer(end_bias=-2.5)
    controllers = np.random.default_rng(2).standard_normal((6, len(agent.controller)))
    found = []
    for every in (1, 7, 32):
        monkeypatch.setattr(returns, "_EVERY", every)
        found.append(as_on_a_gpu(agent)(controllers, [1, 2, 3], 70))
    assert found[0][1] == found[1][1] == found[2][1]
    assert (found[0][0] == found[1][0]).all() and (found[0][0] == found[2][0]).all()


def test_a_batch_that_is_filled_again_remembers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returns, "_FEW", 4)
    agent = dreamer(end_bias=-2.5)
    controllers = np.random.default_rng(3).standard_normal((2, 5, len(agent.controller)))
    measure = as_on_a_gpu(agent)
    measure(controllers[0], [1, 2, 3], 64)
    known = list(measure._standing.values())
    again, steps = measure(controllers[1], [4, 5, 6], 64)
    wanted, lived = as_on_a_gpu(agent)(controllers[1], [4, 5, 6], 64)
    assert (again == wanted).all() and steps == lived
    assert next(iter(measure._standing.values())) is known[0], "a GPU would replay what it recorded"


def test_no_more_batches_are_held_ready_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returns, "_RECORDED", 2)
    agent = dreamer()
    measure = as_on_a_gpu(agent)
    for count in (1, 2, 3):
        measure(np.zeros((count, len(agent.controller))), [1, 2], 3)
    assert len(measure._standing) == 2


class OnlyThere(TorchDispatchMode):
    """Refuses every operation that touches a tensor anywhere but on the device ``meta``, which holds no values."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at what goes in and at what comes out."""
        result = function(*args, **(kwargs or {}))
        for one in tree_leaves((args, kwargs, result)):
            assert not isinstance(one, torch.Tensor) or one.device.type == "meta", f"{function} of a tensor elsewhere"
        return result


@pytest.mark.parametrize("task", ["car-racing", "take-cover"])
@pytest.mark.parametrize("candidates", [4, 70])
def test_recorded_steps_ask_the_device_for_no_value_and_take_nothing_from_elsewhere(task: str, candidates: int) -> None:
    agent = dreamer(task)
    agent.vision.to("meta")
    agent.memory.to("meta")
    agent.device = torch.device("meta")
    measure = DreamReturns(agent, 1.1, "sample")
    whole = measure._begin(np.zeros((candidates, len(agent.controller))), [1, 2, 3])
    part = whole.keep(torch.arange(candidates, device="meta"))
    for batch in (whole, StandingBatch(part, 32)):
        assert isinstance(batch, StandingBatch)
        with OnlyThere():
            batch._in_place(32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: what it records is tried on the CPU only")
def test_a_real_gpu_replays_what_a_cpu_dreams(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(returns, "_FEW", 16)
    agent = dreamer(end_bias=-4.0)
    controllers = np.random.default_rng(4).standard_normal((6, len(agent.controller)))
    seeds = [1, 2, 3, 4, 5]
    wanted, lived = as_on_a_gpu(agent)(controllers, seeds, 150)
    for part in (agent.vision, agent.memory):
        part.to(CUDA)
    agent.device = CUDA
    measure = as_on_a_gpu(agent)
    for _ in range(3):
        found, steps = measure(controllers, seeds, 150)
        np.testing.assert_allclose(found, wanted, atol=1e-2)
        assert steps == lived
    assert any(batch._replayed._graph is not None for batch in measure._standing.values())
    assert capsys.readouterr().err == ""


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
    graphs, calls = Graphs(monkeypatch), list[int]()
    replayed = Replayed(CUDA)
    for number in range(5):
        replayed(partial(calls.append, number))
    assert calls == [0, 1] and graphs.replays == 4


def test_where_recording_fails_one_line_says_so_and_the_work_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graphs, calls = Graphs(monkeypatch, fails=True), list[int]()
    replayed = Replayed(CUDA)
    for _ in range(4):
        replayed(lambda: calls.append(1))
    assert len(calls) == 5 and graphs.replays == 0  # one of the calls was the attempt to record, which does nothing
    warned = capsys.readouterr().err.splitlines()
    assert len(warned) == 1 and "without CUDA graphs" in warned[0] and "operation not permitted" in warned[0]


def test_elsewhere_work_is_simply_done() -> None:
    calls, replayed = list[int](), Replayed(CPU)
    for number in range(3):
        replayed(partial(calls.append, number))
    assert calls == [0, 1, 2]
