"""Which strategy evolves C best? All of them on the V and M of a run, with equal budgets, in dreams and in the world.

python benchmarks/strategies.py --run RUN [--out DIR] [--seeds 3] [--generations 40] [--population 16] [--episodes 8]

An arm is a strategy, a world and a seed. Every arm starts from the same untrained C and evaluates as many candidates on
as many episodes; strategies with the same seed get the same episodes. The mean of the distribution is validated in the
real world, on episodes that all arms have in common. Lengths of episodes and step sizes are those of the first phase of
that world in the run's preset. Finished arms are kept as JSON in DIR/arms, and an unfinished one continues. Writes
DIR/strategies.json and DIR/strategies.png: the median of the seeds, with the lowest and highest.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from worldmodels.agent import Agent, untrained_agent
from worldmodels.analysis.style import BLUE, GREEN, GREY, ORANGE, PINK, STYLE, legend_below, new_figure, run_title
from worldmodels.analysis.style import save_figure as save
from worldmodels.core.device import choose_device
from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.files import read_json, write_json
from worldmodels.core.metrics import read_metrics
from worldmodels.core.seeds import episode_seeds
from worldmodels.core.settings import to_json
from worldmodels.evolution.config import PhaseConfig
from worldmodels.evolution.fitness import Fitness, WorldFitness
from worldmodels.evolution.loop import evolve
from worldmodels.evolution.phases import Evolution, phases_in
from worldmodels.execution.executor import Executor, make_executor
from worldmodels.run.artifacts import Artifacts
from worldmodels.run.reader import RunReader

COLOURS = {"cma": BLUE, "sep-cma": ORANGE, "pepg": GREEN, "openai-es": PINK, "ga": GREY}
WORLDS = {"dream": "evolved in dreams", "real": "evolved in the real world"}
_VALIDATION = 1_000_000_007
"""Part of the seeds of the common validation episodes, so that no phase has the same ones."""


class Counted:
    """Fitness that notes the environment steps of every generation in a file, also those of killed processes."""

    def __init__(self, fitness: Fitness, path: Path, longest: int) -> None:
        self._fitness, self._path, self._longest = fitness, path, longest
        self.steps: dict[str, int] = read_json(path) if path.exists() else {}
        """Environment steps of each generation, in order, by the seeds of its episodes."""

    def __call__(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int]:
        """The returns (N, E) and the steps in total."""
        returns, done = self._fitness(controllers, seeds, min(steps, self._longest), patience)
        # A generation that is repeated, because its process was killed before its checkpoint, is counted once.
        self.steps[" ".join(map(str, seeds))] = done
        write_json(self._path, self.steps)
        return returns, done


class Common:
    """Validation on the same episodes in all arms, whichever seeds are asked for."""

    def __init__(self, fitness: Fitness, seeds: Sequence[int], longest: int) -> None:
        self._fitness, self._seeds, self._longest = fitness, seeds, longest

    def __call__(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int]:
        """The returns (N, E) and the steps in total."""
        return self._fitness(controllers, self._seeds, min(steps, self._longest), patience)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The arms on one run."""

    artifacts: Artifacts
    executor: Executor
    options: argparse.Namespace

    def settings(self, world: str) -> PhaseConfig:
        """The phase in which all strategies evolve: the preset's first one of that world, with the common budget."""
        options, evolution = self.options, self.artifacts.config.evolution
        names = phases_in(evolution, world)
        phase = evolution.phases[names[0]] if names else PhaseConfig(world=world)
        changes = {name: getattr(options, name) for name in ("sigma", "lr") if getattr(options, name) is not None}
        return dataclasses.replace(
            phase, generations=options.generations, population=options.population, episodes=options.episodes,
            episodes_growth=0.0, hard_episode_fraction=0.0, subspace="recorded", validate_every=options.validate_every,
            validation_episodes=options.validation_episodes, reevaluate_top_k=1, **changes,
        )  # fmt: skip

    def agent(self) -> Agent:
        """The run's V and M with an untrained C."""
        artifacts, device = self.artifacts, choose_device(self.options.device)
        vision, memory = artifacts.vision(device), artifacts.memory(device)
        return untrained_agent(artifacts.task, vision, memory, artifacts.inputs, artifacts.hidden)

    def validation(self, agent: Agent) -> Common:
        """Returns in the real world on the common episodes."""
        backend = self.artifacts.config.evolution.backend or agent.task.backends[0]
        seeds = episode_seeds("validation", self.artifacts.seed, self.options.validation_episodes, _VALIDATION)
        return Common(WorldFitness(self.executor, agent, backend), seeds, self.options.steps or agent.task.max_steps)

    def identity(self, world: str) -> str:
        """A digest of everything but the strategy and the seed on which an arm's result depends."""
        artifacts, config = self.artifacts, self.artifacts.config
        parts: dict[str, Any] = {
            "stages": [artifacts.digest(name) for name in ("vision", "encode", "memory")],
            "models": [model.digest("memory") for model in artifacts.dream_models],
            "phase": to_json(self.settings(world)),
            "components": self.options.components,
            "steps": self.options.steps,
            "dream": to_json(config.dream),
            "controller": to_json(config.controller),
            "backend": config.evolution.backend,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def arm(self, world: str, strategy: str, seed: int, start: float) -> dict[str, Any]:
        """The validations of one arm by environment steps; evolved now, unless the arm is finished.

        start: the validation of the untrained C.
        """
        folder = self.options.out / "arms" / f"{world}-{strategy}-{seed}"
        path, identity = folder.with_suffix(".json"), self.identity(world)
        if path.exists():
            content: dict[str, Any] = read_json(path)
            if content.get("identity") != identity:
                raise UserError(f"{path} was made with other options or of another run; choose another --out")
            return content
        agent, config, settings = self.agent(), self.artifacts.config, self.settings(world)
        models = [model.memory(agent.device) for model in self.artifacts.dream_models] if world == "dream" else []
        evolution = dataclasses.replace(
            config.evolution, strategy=strategy, components=self.options.components, phases={world: settings}
        )
        latents, validate = self.artifacts.latents(), self.validation(agent)
        run = Evolution(agent, evolution, config.dream, self.executor, seed, latents, models, identity)
        phase = run.phase(0, world, settings)
        longest = self.options.steps or agent.task.max_steps
        counted = Counted(phase.fitness, folder / "steps.json", longest)
        phase = dataclasses.replace(phase, name=f"{strategy}, {world}", fitness=counted, validate=validate)
        evolve(agent, phase, folder)
        steps, columns = np.cumsum([0, *counted.steps.values()]), read_metrics(folder / "metrics.csv")
        validated = np.isfinite(columns["validation"])
        generations = [0, *columns["step"][validated].astype(int).tolist()]
        content = {
            "world": world,
            "strategy": strategy,
            "seed": seed,
            "identity": identity,
            "settings": to_json(settings),
            "generations": generations,
            "steps": steps[generations].tolist(),
            "validation": [start, *columns["validation"][validated].tolist()],
        }
        write_json(path, content)
        return content


def compared(run: Path, executor: Executor, options: argparse.Namespace) -> dict[str, Any]:
    """All arms, and for every world and strategy the last and the best validations of the seeds."""
    reader = RunReader(run)
    numbers = [number for number in range(1, reader.rounds + 1) if reader.artifacts(number).finished("memory")]
    if not numbers:
        raise UserError(f"the memory stage of {run} is not finished; expected a run with a V and an M")
    comparison = Comparison(reader.artifacts(numbers[-1]), executor, options)
    agent = comparison.agent()
    returns, _ = comparison.validation(agent)(agent.controller[None].double().numpy(), [], agent.task.max_steps)
    arms = [
        comparison.arm(world, strategy, seed, float(returns.mean()))
        for world in options.worlds
        for seed in range(1, options.seeds + 1)
        for strategy in options.strategies
    ]
    summary: dict[str, Any] = {}
    for world in options.worlds:
        for strategy in options.strategies:
            own = [arm["validation"] for arm in arms if (arm["world"], arm["strategy"]) == (world, strategy)]
            last, best = [values[-1] for values in own], [max(values) for values in own]
            summary.setdefault(world, {})[strategy] = {"last": _range(last), "best": _range(best)}
    made_with = comparison.artifacts.provenance(agent.device)
    return {"run": comparison.artifacts.run_name, "made_with": made_with, "summary": summary, "arms": arms}


def _range(values: Sequence[float]) -> dict[str, Any]:
    return {"median": float(np.median(values)), "lowest": min(values), "highest": max(values), "values": list(values)}


def draw(result: dict[str, Any], run: Path, out: Path) -> None:
    """Write the figure: a panel for each world, a line and a band for each strategy."""
    worlds = list(result["summary"])
    with matplotlib.rc_context(STYLE):
        figure = new_figure(5.0 * len(worlds), 4.4, run_title(run))
        panels = figure.subplots(1, len(worlds), sharey=True, squeeze=False)[0]
        for panel, world in zip(panels, worlds, strict=True):
            for strategy in result["summary"][world]:
                own = [arm for arm in result["arms"] if (arm["world"], arm["strategy"]) == (world, strategy)]
                steps, values = (np.array([arm[name] for arm in own], float) for name in ("steps", "validation"))
                x, colour = np.median(steps, axis=0), COLOURS.get(strategy)
                panel.plot(x, np.median(values, axis=0), color=colour, label=strategy)
                panel.fill_between(x, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0)
            unit = "dream steps" if world == "dream" else "environment steps"
            panel.set(title=WORLDS[world], xlabel=f"{unit} of all candidates")
            panel.ticklabel_format(axis="x", style="sci", scilimits=(0, 4))
        panels[0].set_ylabel("return in the real world, on common episodes")
        legend_below([panels[0]], columns=3)
        save(figure, out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a run whose stages encode and memory are finished")
    parser.add_argument("--out", type=Path, default=Path("strategies"))
    parser.add_argument("--strategies", nargs="+", default=list(COLOURS))
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--generations", type=int, default=40)
    parser.add_argument("--population", type=int, default=16)
    parser.add_argument("--episodes", type=int, default=8, help="of every candidate in a generation")
    parser.add_argument("--components", type=int, default=32, help="0: every weight of C is searched by itself")
    parser.add_argument("--sigma", type=float, help="initial step size of all strategies (default: the preset's)")
    parser.add_argument("--lr", type=float, help="of pepg and openai-es (default: the preset's)")
    parser.add_argument("--validate-every", type=int, default=4, help="generations between validations")
    parser.add_argument("--validation-episodes", type=int, default=32)
    parser.add_argument("--steps", type=int, default=0, help="longest episode, for quick trials (0: the preset's)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--executor", default="auto")
    options = parser.parse_args(arguments)
    executor = make_executor(options.executor, choose_device(options.device).type)
    with contextlib.closing(executor):
        result = compared(options.run, executor, options)
    write_json(options.out / "strategies.json", result)
    draw(result, options.run, options.out / "strategies.png")
    for world, strategies in result["summary"].items():
        print(f"{WORLDS[world]}: the last validation (median of {options.seeds}; lowest to highest)")
        for name, numbers in sorted(strategies.items(), key=lambda item: -item[1]["last"]["median"]):
            last = numbers["last"]
            print(f"  {name:<10} {last['median']:8.1f}   {last['lowest']:.1f} to {last['highest']:.1f}")
    say(f"{options.out / 'strategies.json'} and {options.out / 'strategies.png'}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"strategies: {error}") from None
