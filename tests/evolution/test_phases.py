"""The whole evolution, phase by phase, in dreams and in a scripted real world."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import VectorEnv

from toy import Glance, latents_of, without_speed
from worldmodels.agent import Agent, untrained_agent
from worldmodels.controller.strategies import StrategySettings, make_strategy
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors
from worldmodels.core.seeds import episode_seeds
from worldmodels.data.collect import record_episodes
from worldmodels.data.encode import dream_starts
from worldmodels.dream.config import DreamConfig
from worldmodels.evolution.config import EvolutionConfig, PhaseConfig
from worldmodels.evolution.dream_fitness import DreamFitness
from worldmodels.evolution.fitness import WorldFitness
from worldmodels.evolution.phases import Evolution, phase_folder, phases_of
from worldmodels.evolution.subspace import recorded_inputs, visited_inputs
from worldmodels.execution.executor import Chunk, LocalExecutor
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN
from worlds import MAX_STEPS, Diarist, Scripted, ScriptedEnv

SEED = 3
SMALL = PhaseConfig(
    generations=4, population=6, episodes=2, sigma=0.5, max_steps=6, validate_every=2, validation_episodes=4,
    warm_start_sigma=0.3,
)  # fmt: skip
CONFIG = EvolutionConfig(
    components=5,
    backend="fast",
    sequence=("dream", "real", "finetune"),
    phases={
        "dream": replace(SMALL, world="dream"),
        "real": SMALL,
        "finetune": replace(SMALL, subspace="visited", sigma=0.05, warm_start_sigma=0.0),
    },
)
DREAM = DreamConfig(temperature=1.1)


class AnySeedEnv(ScriptedEnv):
    """The scripted world of the lowest byte of every seed; ``pays`` is what an action is worth."""

    def __init__(self, num_envs: int, pays: float) -> None:
        super().__init__(num_envs)
        self._pays = pays

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return super().reset(seed=[one % 256 for one in seed])

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        seen, rewards, *rest = super().step(actions)
        return seen, np.where(rewards > 0, rewards + (self._pays - 1) * actions[:, 0], 0.0), *rest


class Pedal(Scripted):
    """The scripted world, in which pressing the pedal (0 to 0.5) pays; ``pays`` 0: nothing that anybody does pays."""

    def __init__(self, pays: float = 8.0) -> None:
        super().__init__()
        self._pays = pays

    def _make(self, num_envs: int, backend: str) -> VectorEnv:
        self.made.append((num_envs, backend))
        return AnySeedEnv(num_envs, self._pays)

    def env_action(self, control: np.ndarray) -> np.ndarray:
        return (control + 1) / 4


class CountingExecutor(LocalExecutor):
    """Counts chunks, and is killed at one of them."""

    def __init__(self, dies_at: int | None = None) -> None:
        super().__init__()
        self.chunks, self._dies_at = 0, dies_at

    def map(self, chunks: Iterable[Chunk[Any]]) -> Iterator[Any]:
        for chunk in chunks:
            if self.chunks == self._dies_at:
                raise KeyboardInterrupt
            self.chunks += 1
            yield from super().map([chunk])


def memory_of(seed: int) -> MDNRNN:
    """An M whose dreams last some steps."""
    torch.manual_seed(seed)
    memory = MDNRNN(4, 2, 6, 2, reward=True, end=True)
    assert memory.end_head is not None
    torch.nn.init.constant_(memory.end_head.bias, -2.0)
    return memory


@dataclass
class Case:
    """An agent that does nothing yet, and recorded episodes."""

    folder: Path
    pays: float = 8.0
    inputs: Sequence[str] | None = None
    latents: Latents = field(init=False)

    def __post_init__(self) -> None:
        agent = self.agent()
        task, seeds = agent.task, list(range(3, 40, 3))
        episodes = record_episodes(LocalExecutor(), task, "fast", lambda _: Diarist(), seeds, MAX_STEPS)
        self.latents = latents_of(agent, episodes, self.folder / "episodes")

    def agent(self) -> Agent:
        torch.manual_seed(1)
        vision = Glance()
        return untrained_agent(Pedal(self.pays), vision, memory_of(2), self.inputs)

    def evolved(
        self,
        name: str,
        config: EvolutionConfig = CONFIG,
        executor: LocalExecutor | None = None,
        dream_models: Sequence[MDNRNN] = (),
        identity: str = "",
    ) -> tuple[Agent, dict[str, float]]:
        """A fresh agent with the C of an evolution in the folder ``name``, and what it reached."""
        agent = self.agent()
        run = Evolution(agent, config, DREAM, executor or LocalExecutor(), SEED, self.latents, dream_models, identity)
        return agent, run.run(self.folder / name)

    def checkpoint(self, name: str, number: int, phase: str) -> dict[str, np.ndarray]:
        tensors, _ = load_tensors(self.folder / name / phase_folder(number, phase) / "evolution.safetensors")
        return {key: value.numpy() for key, value in tensors.items()}


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def with_phase(name: str, config: EvolutionConfig = CONFIG, **settings: Any) -> EvolutionConfig:
    """The settings with other ones for a phase."""
    return replace(config, phases=config.phases | {name: replace(config.phases[name], **settings)})


def test_every_phase_starts_from_the_controller_of_the_one_before(case: Case) -> None:
    start = np.zeros(len(case.agent().controller))
    for number, name in enumerate(CONFIG.sequence):
        part = replace(CONFIG, sequence=CONFIG.sequence[: number + 1])
        agent, _ = case.evolved("part" + name, part)
        np.testing.assert_array_equal(case.checkpoint("part" + name, number, name)["start"], start)
        assert not np.array_equal(agent.controller.numpy(), start), "each of these phases finds something better"
        start = agent.controller.numpy()
    agent, _ = case.evolved("whole")
    np.testing.assert_array_equal(agent.controller.numpy(), start)


def test_the_first_phase_starts_from_the_agents_own_controller(case: Case) -> None:
    agent = case.agent()
    agent.controller = torch.randn(len(agent.controller))
    wanted = agent.controller.numpy()
    config = replace(CONFIG, sequence=("real",))
    Evolution(agent, config, DREAM, LocalExecutor(), SEED, case.latents).run(case.folder / "run")
    np.testing.assert_array_equal(case.checkpoint("run", 0, "real")["start"], wanted)


@pytest.mark.parametrize("sigma", [0.3, 30.0], ids=["small steps", "wild steps"])
def test_no_phase_makes_the_controller_worse_by_its_own_validation(case: Case, sigma: float) -> None:
    phases = {name: replace(phase, warm_start_sigma=sigma) for name, phase in CONFIG.phases.items()}
    config = replace(CONFIG, phases=phases)
    agent, metrics = case.evolved("run", config)
    results = [case.checkpoint("run", number, name)["start"] for number, name in enumerate(CONFIG.sequence)]
    results.append(agent.controller.numpy())
    world = WorldFitness(LocalExecutor(), agent, "fast")
    for number, name in enumerate(CONFIG.sequence):
        seeds = episode_seeds("validation", SEED, 4, 0, number)
        before, after = (
            world(one[None].astype(np.float64), seeds, MAX_STEPS)[0].mean() for one in results[number:][:2]
        )
        assert after == pytest.approx(metrics[f"{name}_validation"]), name
        assert after >= before or number == 0, name  # where nothing was evolved before, the start is not a candidate
    assert metrics["validation"] == metrics["finetune_validation"]


def test_evolution_in_dreams_is_validated_in_the_real_world(case: Case) -> None:
    agent, metrics = case.evolved("run", replace(CONFIG, sequence=("dream",)))
    seeds = episode_seeds("validation", SEED, 4)
    returns, _ = WorldFitness(LocalExecutor(), agent, "fast")(agent.controller[None].double().numpy(), seeds, MAX_STEPS)
    assert returns.mean() == pytest.approx(metrics["validation"])


def test_what_phases_reached_is_told_by_their_names_and_of_a_single_one_without(case: Case) -> None:
    _, several = case.evolved("several", replace(CONFIG, sequence=("dream", "real")))
    _, one = case.evolved("one", replace(CONFIG, sequence=("dream",)))
    assert set(one) == {"generations", "validation", "best_generation"}
    assert {name: several[f"dream_{name}"] for name in one} == one
    assert set(several) == {f"{phase}_{name}" for phase in ("dream", "real") for name in one} | {"validation"}


def test_the_real_world_is_learnt(case: Case) -> None:
    """Every step pays 8 times as much as the pedal is pressed, which is 0.25 at first and 0.5 at most."""
    config = with_phase("real", replace(CONFIG, sequence=("real",)), generations=8)
    agent, _ = case.evolved("run", config)
    world, seeds = WorldFitness(LocalExecutor(), agent, "fast"), list(range(40))
    both = np.stack([np.zeros(len(agent.controller)), agent.controller.double().numpy()])
    before, after = world(both, seeds, MAX_STEPS)[0].mean(axis=1)
    assert after > before + 3


# --- several starts ------------------------------------------------------------------------------------------


STARTS = replace(CONFIG, sequence=("real", "finetune"), starts=3)


def test_of_several_starts_the_one_with_the_best_validation_goes_on(case: Case) -> None:
    _, metrics = case.evolved("run", STARTS)
    scores = [metrics[f"start_{start}_validation"] for start in (1, 2, 3)]
    best = int(metrics["best_start"])
    assert len(set(scores)) == 3 and scores[best - 1] == max(scores) == metrics["real_validation"]
    world, seeds = WorldFitness(LocalExecutor(), case.agent(), "fast"), episode_seeds("validation", SEED, 4)
    start = case.checkpoint("run", 1, "finetune")["start"]
    assert world(start[None], seeds, MAX_STEPS)[0].mean() == pytest.approx(max(scores)), "all have the same episodes"
    _, one = case.evolved("one", replace(STARTS, starts=1, sequence=("real",)))
    assert one["validation"] == scores[0], "the first start is the only one of an evolution with one"


def test_starts_end_with_the_first_that_is_good(case: Case) -> None:
    _, every = case.evolved("every", replace(STARTS, good_start=1e9))
    scores = [every[f"start_{start}_validation"] for start in (1, 2, 3)]
    for name, good in (("first", scores[0]), ("highest", max(scores))):
        needed = next(count for count, score in enumerate(scores, 1) if score >= good)
        _, metrics = case.evolved(name, replace(STARTS, good_start=good))
        told = [metrics[key] for key in metrics if key.startswith("start_")]
        assert told == scores[:needed] and metrics["best_start"] == needed
        made = [(case.folder / name / phase_folder(0, "real", start)).exists() for start in range(3)]
        assert made == [start < needed for start in range(3)]


def test_of_a_single_phase_with_several_starts_the_best_is_the_result(case: Case) -> None:
    agent, metrics = case.evolved("run", replace(STARTS, sequence=("real",)))
    scores = [metrics[f"start_{start}_validation"] for start in (1, 2, 3)]
    assert metrics["validation"] == max(scores)
    world, seeds = WorldFitness(LocalExecutor(), agent, "fast"), episode_seeds("validation", SEED, 4)
    returns, _ = world(agent.controller[None].double().numpy(), seeds, MAX_STEPS)
    assert returns.mean() == pytest.approx(max(scores))


def test_every_start_has_other_candidates_and_other_episodes(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[tuple[np.ndarray, list[int]]] = []
    usual = WorldFitness.__call__

    def recording(self: WorldFitness, controllers: np.ndarray, seeds: Sequence[int], *rest: Any) -> Any:
        if len(controllers) > 1:
            played.append((controllers, list(seeds)))
        return usual(self, controllers, seeds, *rest)

    monkeypatch.setattr(WorldFitness, "__call__", recording)
    case.evolved("run", with_phase("real", replace(STARTS, sequence=("real",)), generations=1))
    assert len(played) == 3
    for (ours, our_seeds), (theirs, their_seeds) in zip(played, played[1:] + played[:1], strict=True):
        assert not np.isclose(ours, theirs).all(axis=1).any() and not set(our_seeds) & set(their_seeds)


def test_an_evolution_killed_in_any_start_continues_to_the_same_bits(case: Case) -> None:
    wanted, metrics = case.evolved("whole", STARTS)
    executor = CountingExecutor()
    case.evolved("counted", STARTS, executor)
    for place in (executor.chunks // 4, executor.chunks // 2, executor.chunks - 2):
        with pytest.raises(KeyboardInterrupt):
            case.evolved(f"killed-{place}", STARTS, executor=CountingExecutor(place))
        found, again = case.evolved(f"killed-{place}", STARTS, executor=(rest := CountingExecutor()))
        assert torch.equal(found.controller, wanted.controller) and again == metrics
        assert rest.chunks <= executor.chunks - place + 3, "it began anew"


# --- resuming ------------------------------------------------------------------------------------------------


def chunks_of(case: Case, config: EvolutionConfig) -> int:
    """How many chunks of work an evolution takes."""
    executor = CountingExecutor()
    case.evolved(f"counted-{'-'.join(config.sequence)}", config, executor)
    return executor.chunks


def test_an_evolution_killed_in_a_later_phase_continues_to_the_same_bits(case: Case) -> None:
    wanted, metrics = case.evolved("whole")
    first, whole = chunks_of(case, replace(CONFIG, sequence=("dream",))), chunks_of(case, CONFIG)
    # The end of the first phase; the second one's first validation and a later generation; the third one's end.
    places = [first - 1, first, first + 3, whole - 1]
    assert places == sorted(set(places))
    for place in places:
        name = f"killed-{place}"
        with pytest.raises(KeyboardInterrupt):
            case.evolved(name, executor=CountingExecutor(place))
        found, again = case.evolved(name, executor=(rest := CountingExecutor()))
        assert torch.equal(found.controller, wanted.controller) and again == metrics
        assert rest.chunks <= whole - place + 3, "it began anew"
        for number, phase in enumerate(CONFIG.sequence):
            folder = phase_folder(number, phase)
            assert without_speed(case.folder / name / folder) == without_speed(case.folder / "whole" / folder)
            ours, theirs = case.checkpoint(name, number, phase), case.checkpoint("whole", number, phase)
            for key, value in theirs.items():
                np.testing.assert_array_equal(ours[key], value)


def test_a_finished_evolution_does_nothing_again(case: Case) -> None:
    wanted, metrics = case.evolved("run")
    found, again = case.evolved("run", executor=(idle := CountingExecutor()))
    assert torch.equal(found.controller, wanted.controller) and again == metrics and idle.chunks == 0


def test_more_generations_of_the_first_phase_continue_it_and_begin_the_second_anew(case: Case) -> None:
    both = replace(CONFIG, sequence=("real", "finetune"))
    longer = with_phase("real", both, generations=8)
    wanted, metrics = case.evolved("whole", longer)
    whole, short = chunks_of(case, longer), chunks_of(case, with_phase("real", replace(both, sequence=("real",))))
    case.evolved("grown", both)
    starts = [case.checkpoint(name, 1, "finetune")["start"] for name in ("grown", "whole")]
    assert not np.array_equal(*starts), "the further generations found something better"
    found, again = case.evolved("grown", longer, executor=(rest := CountingExecutor()))
    assert torch.equal(found.controller, wanted.controller) and again == metrics
    assert rest.chunks == whole - short, "what was done of the first phase is done, and nothing of the second"
    folder = phase_folder(1, "finetune")
    assert without_speed(case.folder / "grown" / folder) == without_speed(case.folder / "whole" / folder)


def test_a_second_phase_whose_start_stays_the_same_is_not_begun_anew(tmp_path: Path) -> None:
    case = Case(tmp_path, pays=0.0)  # all are equally good, so that the first one validated stays the best
    both = replace(CONFIG, sequence=("real", "finetune"))
    wanted, _ = case.evolved("grown", both)
    longer = with_phase("real", both, generations=6)
    found, metrics = case.evolved("grown", longer, executor=(rest := CountingExecutor()))
    assert metrics["real_generations"] == 6 and metrics["real_best_generation"] == 2
    assert rest.chunks == 2 + 1, "two generations, and their validation"
    assert torch.equal(found.controller, wanted.controller)


def test_an_evolution_of_another_experiment_is_refused(case: Case) -> None:
    config = replace(CONFIG, sequence=("real",))
    case.evolved("run", config, identity="one")
    with pytest.raises(UserError, match=r"1-real.*delete it, or use another --run"):
        case.evolved("run", config, identity="other")


# --- what phases are made of ---------------------------------------------------------------------------------


def first_candidates(case: Case, size: int, number: int, sigma: float) -> np.ndarray:
    """What a phase asks in its first generation, beside its start and in the whole space."""
    settings = StrategySettings(size, SMALL.population, sigma, SEED, (number,), 0.98, 14)
    return make_strategy("sep-cma", settings).ask()


def test_dream_models_share_the_episodes_while_the_agents_own_m_follows(case: Case) -> None:
    others = [memory_of(11), memory_of(12)]
    config = with_phase("dream", replace(CONFIG, sequence=("dream",), components=0), episodes=5, generations=1)
    case.evolved("run", config, dream_models=others)
    found = case.checkpoint("run", 0, "dream")["fitness"][0]
    agent = case.agent()
    candidates = first_candidates(case, len(agent.controller), 0, SMALL.sigma)
    seeds, returns = episode_seeds("fitness", SEED, 5, 0), np.zeros((6, 5))

    def remembering(memory: MDNRNN) -> Agent:
        one = case.agent()
        one.memory = memory
        one.starts, one.start_states = dream_starts(memory, case.latents, one.task.start_steps)
        return one

    for index, other in enumerate(others):
        fitness = DreamFitness(LocalExecutor(), remembering(agent.memory), 1.1, "sample", remembering(other))
        returns[:, index::2], _ = fitness(candidates, seeds[index::2], SMALL.max_steps)
    np.testing.assert_allclose(found, returns.mean(axis=1), rtol=1e-12)
    case.evolved("alone", config)
    assert not np.isclose(case.checkpoint("alone", 0, "dream")["fitness"][0], found).any()


def test_dreams_start_where_the_settings_say_or_else_where_the_task_does(case: Case) -> None:
    config = with_phase("dream", replace(CONFIG, sequence=("dream",), components=0), generations=1)
    agent = case.agent()
    candidates = first_candidates(case, len(agent.controller), 0, SMALL.sigma)
    for steps in ((), (2,), (0, 1)):
        run = Evolution(agent, config, replace(DREAM, start_steps=steps), LocalExecutor(), SEED, case.latents)
        folder = case.folder / str(steps)
        agent.controller.zero_()
        run.run(folder)
        dreaming = case.agent()
        dreaming.starts, dreaming.start_states = dream_starts(dreaming.memory, case.latents, steps or (0,))
        fitness = DreamFitness(LocalExecutor(), dreaming, 1.1, "sample")
        returns, _ = fitness(candidates, episode_seeds("fitness", SEED, 2, 0), SMALL.max_steps)
        found = load_tensors(folder / "1-dream" / "evolution.safetensors")[0]["fitness"][0].numpy()
        np.testing.assert_allclose(found, returns.mean(axis=1), rtol=1e-12)
    assert agent.starts is None, "the agent itself is as it was"


def test_a_visited_subspace_is_of_what_the_current_controller_sees(case: Case) -> None:
    case.evolved("run")
    for number, name, visited in ((0, "dream", False), (1, "real", False), (2, "finetune", True)):
        state, agent = case.checkpoint("run", number, name), case.agent()
        assert state["basis"].shape == (10, 5)
        agent.controller = torch.from_numpy(state["start"]).float()
        seeds = episode_seeds("visited", SEED, 24, number)
        inputs = visited_inputs(LocalExecutor(), agent, "fast", seeds, SMALL.max_steps)
        wanted = inputs if visited else recorded_inputs(agent, case.latents)
        np.testing.assert_allclose(state["centre"], wanted.mean(axis=0, dtype=np.float64), atol=1e-6)
    agent.controller.zero_()
    other = visited_inputs(LocalExecutor(), agent, "fast", seeds, SMALL.max_steps)
    assert not np.allclose(state["centre"], other.mean(axis=0), atol=1e-6), "another C would have seen something else"


def test_phases_have_seeds_of_their_own(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[int], int]] = []
    original: Callable[..., Any] = WorldFitness.__call__

    def call(self: WorldFitness, controllers: np.ndarray, seeds: list[int], *rest: Any) -> Any:
        asked.append((list(seeds), len(controllers)))
        return original(self, controllers, seeds, *rest)

    monkeypatch.setattr(WorldFitness, "__call__", call)
    case.evolved("run", replace(CONFIG, sequence=("real", "finetune")))
    fitness = [seeds for seeds, count in asked if count > 1]
    assert fitness[0] == episode_seeds("fitness", SEED, 2, 0), "as before there were phases"
    assert len({seed for seeds in fitness for seed in seeds}) == 2 * 4 * 2, "no episode is played twice"
    validations = {tuple(seeds) for seeds, count in asked if count == 1}
    assert validations == {tuple(episode_seeds("validation", SEED, 4, 0, number)) for number in (0, 1)}


def test_a_controller_that_sees_nothing_is_evolved_by_its_biases(tmp_path: Path) -> None:
    case = Case(tmp_path, inputs=())
    agent, metrics = case.evolved("run")
    assert agent.controller.shape == (2,) and agent.controller[0] > 0
    assert metrics["validation"] == metrics["finetune_validation"]


def test_an_empty_backend_is_the_tasks_fastest(case: Case) -> None:
    config = replace(CONFIG, sequence=("finetune",))
    wanted, metrics = case.evolved("named", config)
    found, again = case.evolved("unnamed", replace(config, backend=""))
    assert torch.equal(found.controller, wanted.controller) and again == metrics


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        (("dream", "polish"), r"must name phases of this preset \(dream, real, finetune\), got 'polish'"),
        (("dream", "dream"), "each once, got dream dream"),
        ((), "each once, got nothing"),
    ],
)
def test_a_sequence_of_other_names_is_refused(sequence: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        phases_of(replace(CONFIG, sequence=sequence))


def test_phases_are_done_in_the_order_of_the_sequence() -> None:
    found = phases_of(replace(CONFIG, sequence=("finetune", "dream")))
    assert found == [("finetune", CONFIG.phases["finetune"]), ("dream", CONFIG.phases["dream"])]
    assert dataclasses.is_dataclass(found[0][1])
