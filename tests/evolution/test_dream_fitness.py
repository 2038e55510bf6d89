"""Fitness from dreams: the same that single steps pay, on a CPU and, tried here on a CPU, as a GPU does it."""

import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dream_agents import dreamer
from worldmodels.agent import Agent
from worldmodels.dream import batch
from worldmodels.dream.batch import Batch, Rows, StandingBatch
from worldmodels.dream.dreams import Dreams, DreamState
from worldmodels.dream.env import DreamVectorEnv
from worldmodels.dream.fast.counter_based import CounterBasedStreams
from worldmodels.dream.fast.cuda_graph import CudaGraph
from worldmodels.dream.fast.streams import Numbers, NumpyStreams
from worldmodels.evolution import dream_fitness
from worldmodels.evolution.dream_fitness import DreamFitness
from worldmodels.execution.chunk_packing import Packer
from worldmodels.execution.executor import LocalExecutor

CUDA = torch.device("cuda")


def fitness_of(agent: Agent, streams: type[NumpyStreams] | type[CounterBasedStreams] = NumpyStreams) -> DreamFitness:
    """Fitness in float32. With computed numbers, batches stand still, as on a GPU."""
    return DreamFitness(LocalExecutor(), agent, 1.1, "sample", dtype=torch.float32, streams=streams)


def controllers_for(agent: Agent, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, len(agent.controller)))


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many dreams every step advances."""
    found: list[int] = []
    original = Dreams.advance

    def advance(
        dreams: Dreams, state: DreamState, actions: Tensor, numbers: Numbers
    ) -> tuple[DreamState, Tensor, Tensor]:
        found.append(len(actions))
        return original(dreams, state, actions, numbers)

    monkeypatch.setattr(Dreams, "advance", advance)
    return found


@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize("task", ["car-racing", "take-cover"])
@pytest.mark.parametrize("candidates", [3, 250])
def test_fitness_is_what_the_environment_would_pay(task: str, candidates: int, hidden: int) -> None:
    agent = dreamer(task, end_bias=-2.5, hidden=hidden)
    controllers, seeds = controllers_for(agent, candidates, 1), [11, 12, 13, 14]
    found, steps = fitness_of(agent)(controllers, seeds, 20)
    assert found.shape == (candidates, 4) and found.dtype == np.float64
    lived = 0
    for index in range(0, candidates, max(1, candidates // 3)):
        env = DreamVectorEnv(4, agent, 1.1, max_steps=20, dtype=torch.float32)
        policy = agent.controllers(torch.from_numpy(controllers[index : index + 1]))
        observations, _ = env.reset(seed=seeds)
        over, wanted = np.zeros(4, bool), np.zeros(4)
        while not over.all():
            action = agent.task.env_action(policy(torch.from_numpy(observations)).numpy())
            observations, rewards, terminated, truncated, _ = env.step(action)
            wanted += rewards
            lived += int((~over).sum())
            over |= terminated | truncated
        np.testing.assert_allclose(found[index], wanted, atol=1e-2)
    if candidates == 3:
        assert steps == lived


@pytest.mark.parametrize("streams", [NumpyStreams, CounterBasedStreams])
def test_patience_ends_a_dream_whose_last_rewards_add_up_to_nothing(
    streams: type[NumpyStreams] | type[CounterBasedStreams], monkeypatch: pytest.MonkeyPatch
) -> None:
    paid = iter([1.0, -0.5, -0.4, -3.0, 2.0, 2.0, -0.1, 0.1, -0.1, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0])
    original = Dreams.advance

    def advance(dreams: Dreams, state: DreamState, actions: Tensor, numbers: Numbers) -> Any:
        after, reward, ended = original(dreams, state, actions, numbers)
        return after, torch.full_like(reward, next(paid)), torch.zeros_like(ended)

    monkeypatch.setattr(Dreams, "advance", advance)
    monkeypatch.setattr(dream_fitness, "_EVERY", 4)
    agent = dreamer()
    returns, steps = fitness_of(agent, streams)(controllers_for(agent, 2, 1), [1, 2], 12, patience=3)
    # 0.1, then 1.0, then -0.1 in three steps each; nothing is paid after that.
    np.testing.assert_allclose(returns, 1.0, atol=1e-6)
    assert steps == 4 * 9


def test_without_rewards_a_dream_goes_on_if_patience_is_not_asked_for(sizes: list[int]) -> None:
    agent = dreamer(end_bias=-20.0)
    assert fitness_of(agent)(controllers_for(agent, 2, 1), [1, 2], 12)[1] == 4 * 12


def test_dreams_that_ended_are_dropped_and_the_work_is_cut_into_chunks(sizes: list[int]) -> None:
    agent = dreamer(end_bias=-2.5)
    returns, _ = fitness_of(agent)(controllers_for(agent, 600, 1), [11, 12, 13, 12], 45)
    assert returns.shape == (600, 4)
    assert max(sizes) == 1200 and sizes.count(1200) > 2, "two equal parts, since 2,048 rows are the most"
    assert min(sizes) < 100


def test_what_another_m_dreams_is_what_c_is_paid_for() -> None:
    agent, other = dreamer("take-cover", end_bias=-20.0), dreamer("take-cover", end_bias=20.0, seed=1)
    other.starts = agent.starts
    controllers = controllers_for(agent, 2, 5)
    for dream_model, steps in ((None, 9), (other, 1)):
        fitness = DreamFitness(LocalExecutor(), agent, 1.0, "threshold", dream_model)
        assert fitness(controllers, [1, 2, 3], 9)[0].tolist() == [[steps] * 3] * 2


def test_chunks_are_asked_of_the_executor() -> None:
    class Counting(LocalExecutor):
        def map(self, chunks):  # type: ignore[no-untyped-def]
            chunks = list(chunks)
            done.append(len(chunks))
            return super().map(chunks)

    done: list[int] = []
    agent = dreamer()
    DreamFitness(Counting(), agent, 1.0, "sample")(controllers_for(agent, 600, 1), [11, 12, 13, 12], 3)
    assert done == [2]


@pytest.mark.parametrize("task", ["car-racing", "take-cover"])
def test_processes_are_not_sent_the_v_of_an_agent_for_dreams_in_which_it_is_not_used(task: str) -> None:
    class Packing(LocalExecutor):
        def map(self, chunks):  # type: ignore[no-untyped-def]
            packer = Packer()
            for chunk in chunks:
                packed = [packer.pack(chunk), *packer.parts.values()]
                sizes.append(sum(buffer.raw().nbytes for part in packed for buffer in part.buffers))
                yield chunk(self._environments)

    sizes: list[int] = []
    agent = dreamer(task)
    DreamFitness(Packing(), agent, 1.0, "sample")(controllers_for(agent, 4, 1), [11, 12], 3)
    weights = [sum(weight.nbytes for weight in net.parameters()) for net in (agent.memory, agent.vision)]
    assert len(sizes) == 1 and weights[0] / 3 < sizes[0] < weights[1] / 2


# --- as a GPU does it ----------------------------------------------------------------------------------------


def one_by_one(agent: Agent, controllers: np.ndarray, seeds: Sequence[int], steps: int) -> tuple[np.ndarray, int]:
    """What each controller earns in each dream, step after step, with computed numbers."""
    found, lived = np.zeros((len(controllers), len(seeds))), 0
    dreams = Dreams(agent, 1.1, "sample", torch.float32, CounterBasedStreams)
    for index, parameters in enumerate(torch.from_numpy(controllers)):
        dreams.reset(seeds)
        policy = agent.controllers(parameters[None])
        alive = np.ones(len(seeds), bool)
        for _ in range(steps):
            reward, ended = dreams.step(agent.task.dream_action(policy(dreams.policy_inputs())))
            found[index] += np.where(alive, reward.numpy(), 0)
            lived += int(alive.sum())
            alive &= ~ended.numpy()
    return found, lived


@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize("task", ["car-racing", "take-cover"])
@pytest.mark.parametrize("candidates", [3, 250])
def test_fitness_as_on_a_gpu_is_what_single_steps_pay(
    task: str, candidates: int, hidden: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dream_fitness, "_FEW", 8)  # so that even these few rows are halved
    monkeypatch.setattr(dream_fitness, "_EVERY", 8)
    agent, seeds = dreamer(task, end_bias=-2.5, hidden=hidden), [11, 12, 13, 12]
    controllers = controllers_for(agent, candidates, 1)
    found, steps = fitness_of(agent, CounterBasedStreams)(controllers, seeds, 45)
    assert len(set(sizes)) > 1 and max(sizes) == min(2048, 4 * candidates), "rows that ended were dropped"
    some = controllers[:: max(1, candidates // 3)]
    wanted, lived = one_by_one(agent, some, seeds, 45)
    np.testing.assert_allclose(found[:: max(1, candidates // 3)], wanted, atol=1e-2)
    assert candidates > 3 or steps == lived


def test_asking_after_every_step_or_after_many_gives_the_same_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = dreamer(end_bias=-2.5)
    found = []
    for every in (1, 7, 32):
        monkeypatch.setattr(dream_fitness, "_EVERY", every)
        found.append(fitness_of(agent, CounterBasedStreams)(controllers_for(agent, 6, 2), [1, 2, 3], 70))
    assert found[0][1] == found[1][1] == found[2][1]
    assert (found[0][0] == found[1][0]).all() and (found[0][0] == found[2][0]).all()


class Graphs:
    """Stands in for CUDA graphs, which only read and write the memory that they were recorded with.

    ``made``: those that still exist.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = weakref.WeakSet[CudaGraph]()
        everyone = self.made

        class Graph(CudaGraph):
            def __init__(self, device: torch.device) -> None:
                super().__init__(device)
                self._memory: list[int] = []
                everyone.add(self)

            def __call__(self, work: Callable[[], object]) -> None:
                standing: StandingBatch = work.func.__self__  # type: ignore[attr-defined]
                assert isinstance(standing.streams, CounterBasedStreams)
                tensors = *standing.rows.tensors, *standing.controllers.tensors(), *standing.streams.tensors()
                memory = [one.data_ptr() for one in tensors]
                assert self._memory in ([], memory), "a graph would not see these tensors"
                self._memory = memory
                super().__call__(work)

        monkeypatch.setattr(batch, "CudaGraph", Graph)


@pytest.mark.parametrize("hidden", [0, 5])
def test_a_batch_that_is_filled_again_remembers_nothing(hidden: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dream_fitness, "_FEW", 4)
    graphs = Graphs(monkeypatch)
    agent = dreamer(end_bias=-2.5, hidden=hidden)
    first, second = controllers_for(agent, 5, 3), controllers_for(agent, 5, 4)
    fitness = fitness_of(agent, CounterBasedStreams)
    fitness(first, [1, 2, 3], 64)
    recorded = set(graphs.made)
    again, steps = fitness(second, [4, 5, 6], 64)
    once_more = fitness(first, [1, 2, 3], 64)
    assert recorded <= set(graphs.made), "a GPU would replay what it recorded"
    wanted, lived = fitness_of(agent, CounterBasedStreams)(second, [4, 5, 6], 64)
    assert (again == wanted).all() and steps == lived
    wanted, lived = fitness_of(agent, CounterBasedStreams)(first, [1, 2, 3], 64)
    assert (once_more[0] == wanted).all() and once_more[1] == lived


def test_generations_of_one_shape_are_recorded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = Graphs(monkeypatch)
    agent = dreamer()
    fitness = fitness_of(agent, CounterBasedStreams)
    for seed in range(4):
        fitness(controllers_for(agent, 5, seed), [seed, seed + 1, seed + 2], 64)
        assert len(graphs.made) == 1


def test_no_more_batches_are_held_ready_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dream_fitness, "_RECORDED", 2)
    graphs = Graphs(monkeypatch)
    agent = dreamer()
    fitness = fitness_of(agent, CounterBasedStreams)
    for count in (1, 2, 3):
        fitness(controllers_for(agent, count, 1), [1, 2], 3)
    gc.collect()
    assert len(graphs.made) == 2


class OnlyThere(TorchDispatchMode):
    """Refuses every operation that touches a tensor anywhere but on the device ``meta``, which holds no values."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        """Look at what goes in and at what comes out."""
        result = function(*args, **(kwargs or {}))
        for one in tree_leaves((args, kwargs, result)):
            assert not isinstance(one, torch.Tensor) or one.device.type == "meta", f"{function} of a tensor elsewhere"
        return result


@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize("task", ["car-racing", "take-cover"])
@pytest.mark.parametrize("candidates", [4, 70])
def test_recorded_steps_ask_the_device_for_no_value_and_take_nothing_from_elsewhere(
    task: str, candidates: int, hidden: int
) -> None:
    agent = dreamer(task, hidden=hidden)
    agent.vision.to("meta")
    agent.memory.to("meta")
    agent.device = torch.device("meta")
    dreams = Dreams(agent, 1.1)
    streams = dreams.streams([1, 2, 3] * candidates, shared=True)
    place = torch.arange(3 * candidates, device="meta")
    rows = Rows(*dreams.start(streams), place >= 0, place.float(), place, place // 3, place, place.float())
    controllers = agent.controllers(torch.zeros(candidates, len(agent.controller)))
    whole = Batch(dreams, controllers, streams, rows, whole=True, patience=5)
    part = whole.keep(torch.arange(candidates, device="meta"))
    with torch.inference_mode():
        for one in (whole, part):
            standing = StandingBatch(one, 32)
            with OnlyThere():
                standing.advance(32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: what it records is tried on the CPU only")
@pytest.mark.parametrize("hidden", [0, 5])
def test_a_real_gpu_replays_what_a_cpu_dreams(
    hidden: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dream_fitness, "_FEW", 16)
    agent, seeds = dreamer(end_bias=-4.0, hidden=hidden), [1, 2, 3, 4, 5]
    controllers = controllers_for(agent, 6, 4)
    wanted, lived = fitness_of(agent, CounterBasedStreams)(controllers, seeds, 150)
    for part in (agent.vision, agent.memory):
        part.to(CUDA)
    agent.device = CUDA
    replays: list[int] = []
    original = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: replays.append(1) or original(graph))
    fitness = fitness_of(agent, CounterBasedStreams)
    for _ in range(3):
        found, steps = fitness(controllers, seeds, 150)
        np.testing.assert_allclose(found, wanted, atol=1e-2)
        assert steps == lived
    assert replays
    assert capsys.readouterr().err == ""
