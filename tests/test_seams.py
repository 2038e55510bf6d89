"""The seams, from outside: a class in a module of one's own and one line make a world, a V, an executor or a format."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import cases
from outside import importable, registered
from worldmodels.agent import AGENT_FILE, load_agent
from worldmodels.cli.main import main
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors
from worldmodels.data.exchange import FORMATS, episode_format
from worldmodels.evaluation import agent_policy, evaluate
from worldmodels.evolution import dream_fitness
from worldmodels.execution.executor import EXECUTORS, LocalExecutor
from worldmodels.render.video import record
from worldmodels.run.experiments import train_run
from worldmodels.run.presets import preset, preset_names
from worldmodels.run.reader import RunReader
from worldmodels.tasks import TASKS, get_task
from worldmodels.vision.base import VISIONS
from worlds import scripted_episodes

_WORLD = '''
"""A light that wanders over sixteen places; actions push it, and the middle pays."""

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from worldmodels.tasks.base import ArrayWorld, Task


class Lights(VectorEnv):
    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}

    def __init__(self, num_envs):
        self.num_envs = num_envs
        self.single_observation_space = spaces.Box(0, 255, (16, 3), np.uint8)
        self.single_action_space = spaces.Box(-1, 1, (1,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed=None, options=None):
        self._streams = [np.random.default_rng(one) for one in seed]
        self._place = np.array([stream.uniform(0, 16) for stream in self._streams])
        self._alive = np.ones(self.num_envs, bool)
        return self._seen(), {}

    def step(self, actions):
        alive = self._alive.copy()
        for row in np.flatnonzero(alive):
            self._place[row] += 2 * actions[row, 0] + self._streams[row].normal()
        ended = alive & ((self._place < 0) | (self._place >= 16))
        self._alive &= ~ended
        rewards = np.where(alive & ~ended, 1 - abs(self._place - 8) / 8, 0.0)
        return self._seen(), rewards, ended, np.zeros(self.num_envs, bool), {}

    def _seen(self):
        seen = np.zeros((self.num_envs, 16, 3), np.uint8)
        seen[np.arange(self.num_envs), np.clip(self._place, 0, 15).astype(int)] = 255, 200, 0
        return seen


class Pushing:
    """Pushes at random."""

    def __init__(self, seeds, policy=None):
        self._streams, self._policy = [np.random.default_rng(one) for one in seeds], policy

    def act(self, observations, rows):
        pushes = np.array([[self._streams[row].uniform(-1, 1)] for row in rows], np.float32)
        return pushes if self._policy is None else np.clip(self._policy.act(observations, rows) + pushes / 4, -1, 1)


class MyWorld(Task):
    """The light as a task."""

    name = "my-world"
    title = "My world"
    observation_shape = (16, 3)
    action_size = control_size = 1
    action_space = spaces.Box(-1, 1, (1,), np.float32)
    max_steps = 12
    max_envs = 4
    num_envs = 4
    reference_backend = "array"

    @property
    def worlds(self):
        return {"array": ArrayWorld(Lights)}

    def frames(self, observations):
        wide = np.repeat(observations, 4, axis=1)[:, None]
        return np.ascontiguousarray(np.broadcast_to(wide, (len(observations), 64, 64, 3)))

    def env_action(self, control):
        return control.astype(np.float32)

    def memory_action(self, actions):
        return np.asarray(actions, np.float32)

    def exploration(self, seeds):
        return Pushing(seeds)

    def perturbed(self, policy, seeds):
        return Pushing(seeds, policy)

    def random_policy(self, seeds):
        return Pushing(seeds)
'''

_PRESETS = """
[tiny]
collect = { episodes = 20, reference_episodes = 10, num_envs = 10 }
vision = { latent_size = 4, epochs = 0.4, batch = 16, window = 2 }
memory = { hidden_size = 8, mixtures = 2, steps = 4, batch = 4, length = 8 }
evaluate = { episodes = 5, num_envs = 2 }

[tiny.evolution]
sequence = ["real", "dream"]

[tiny.evolution.phases.real]
generations = 2
population = 4
episodes = 2
validate_every = 1
validation_episodes = 3

[tiny.evolution.phases.dream]
like = "real"
world = "dream"
"""


@pytest.fixture
def my_world(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds a world and its presets, and the one line that makes it known."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "presets.toml").write_text(_PRESETS)
    with importable(folder, my_world=_WORLD), registered(TASKS, "my-world", "my_world:MyWorld"):
        yield folder


# --- a world -------------------------------------------------------------------------------------------------


def test_a_world_is_a_file_its_presets_and_one_line_and_goes_through_everything(my_world: Path, tmp_path: Path) -> None:
    assert preset_names("my-world") == ["tiny"] and "my-world" in TASKS.names()
    assert "my_world" not in sys.modules, "its presets are read without importing it"
    summary = train_run(preset("tiny", "my-world"), tmp_path / "run", "cpu")
    stages = [stage["name"] for stage in summary["stages"]]
    assert stages == ["collect", "vision", "encode", "memory", "controller", "evaluate"]
    assert (tmp_path / "run" / "curves.png").exists() and not cases.litter(tmp_path / "run")

    run = RunReader(tmp_path / "run")
    assert {stage.state for stage in run.stages()} == {"finished"}
    episodes = list(run.episodes())
    assert len(episodes) == 30 and {episode.renderer for episode in episodes} == {"array"}
    for episode in episodes:
        steps = len(episode.actions)
        assert 1 <= steps <= 12 and episode.frames.shape == (steps + 1, 64, 64, 3)
        assert episode.actions.shape == (steps, 1) and episode.terminated == (steps < 12 or episode.rewards[-1] == 0)
        assert episode.frames.max() == 255, "the light is seen"
    assert len(run.latents().lengths) == 30
    with pytest.raises(UserError, match="my-world cannot be watched or played"):
        record(run.agent(), tmp_path / "drive.mp4", 1)

    agent = load_agent(tmp_path / "run")
    assert agent.task.name == "my-world" and agent.inputs.names == ("z", "h") and agent.starts is not None
    seeds = run.evaluation()["seeds"]
    again = evaluate(LocalExecutor(), agent.task, agent_policy(agent), "array", seeds, 2).returns
    assert again.tolist() == run.evaluation()["returns"]


def test_the_command_line_knows_a_registered_world(my_world: Path, tmp_path: Path) -> None:
    target = tmp_path / "scores.json"
    for policy in (["--policy", "random"], ["--policy", "random", "--backend", "array"]):
        assert main(["evaluate", "my-world", *policy, "--episodes", "6", "--json", str(target)]) == 0
        assert target.exists()
    assert main(["collect", "my-world", "--preset", "tiny", "--run", str(tmp_path / "run")]) == 0
    assert len(list(RunReader(tmp_path / "run").episodes())) == 30


def test_a_world_without_presets_gets_modest_ones_that_fit_any_world(my_world: Path) -> None:
    (my_world / "presets.toml").unlink()
    assert preset_names("my-world") == ["standard", "quick"]
    config = preset("quick", "my-world")
    assert config.task == "my-world" and config.collect.reference_episodes == 0
    assert config.evolution.sequence == ("real",)


def test_a_world_that_cannot_be_watched_says_so_in_one_line(
    my_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = cases.call(capsys, "play", "my-world")
    cases.refused(outcome, "my-world cannot be watched or played")


def test_a_name_is_given_once(my_world: Path) -> None:
    for name in ("my-world", "car-racing"):
        with pytest.raises(UserError, match=f"there is a task called '{name}' already"):
            TASKS.register(name, "my_world:MyWorld")
    TASKS.unregister("my-world")
    with pytest.raises(UserError, match="unknown task 'my-world'"):
        get_task("my-world")
    TASKS.register("my-world", "my_world:MyWorld")


def test_a_task_is_called_what_it_is_registered_as(my_world: Path) -> None:
    """An agent's file names its task, which must be found again."""
    with registered(TASKS, "my-light", "my_world:MyWorld"):
        assert get_task("my-light").name == "my-light" and get_task("my-world").name == "my-world"


# --- a V -----------------------------------------------------------------------------------------------------

_VISION = '''
"""z is a linear map of the mean colours of sixteen blocks."""

import torch
from torch import nn

from worldmodels.core.fit import LearningRate, Objective
from worldmodels.vision.base import Vision

SCALE = torch.full((1,), 2.0)


class Blocks(Vision):
    def __init__(self, latent_size):
        super().__init__(latent_size)
        self.inward, self.outward = nn.Linear(48, latent_size), nn.Linear(latent_size, 48)

    def encode(self, images):
        mu = self.inward(SCALE * nn.functional.avg_pool2d(images.float(), 16).flatten(1))
        return mu, torch.full_like(mu, -4.0)

    def decode(self, z):
        blocks = torch.sigmoid(self.outward(z)).view(-1, 3, 4, 4)
        return blocks.repeat_interleave(16, 2).repeat_interleave(16, 3)

    def objectives(self, config, seed):
        def loss(images, step):
            parts = self.held_out_loss(images, config)
            return parts["error"], parts

        return [Objective("blocks", self, loss, ("error",), LearningRate(config.lr, final_fraction=0.1))]

    def held_out_loss(self, images, config):
        return {"error": (self.decode(self.encode(images)[0]) - images).square().mean()}
'''


def test_a_vision_is_a_class_and_one_line_and_its_agents_know_it(my_world: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with importable(my_world, my_vision=_VISION), registered(VISIONS, "blocks", "my_vision:Blocks"):
        command = ["train", "my-world", "--preset", "tiny", "--vision.model", "blocks", "--device", "cpu"]
        assert main([*command, "--run", str(run)]) == 0
        assert set(RunReader(run).metrics("vision")) >= {"error", "loss", "lr"}
        _, meta = load_tensors(run / "agent" / AGENT_FILE)
        assert meta["vision"] == {"name": "blocks", "latent_size": 4}
    with importable(my_world, my_vision=_VISION), registered(VISIONS, "blocks", "my_vision:Blocks"):
        assert "my_vision" not in sys.modules, "it is imported by its name, when an agent asks for it"
        agent = load_agent(run)
        assert type(agent.vision).__name__ == "Blocks" and agent.vision.name == "blocks"
        frames = next(RunReader(run).episodes()).frames
        assert agent.decode(agent.encode(frames)[0]).shape == frames.shape
        agent.save(tmp_path / "again")
        assert (tmp_path / "again" / AGENT_FILE).read_bytes() == (run / "agent" / AGENT_FILE).read_bytes()
    with pytest.raises(UserError, match="unknown vision model 'blocks'"):
        load_agent(run)


# --- an executor ---------------------------------------------------------------------------------------------

_EXECUTOR = '''
"""Two threads, which begin with the last chunk and get it as a cluster's machines would."""

import threading
from concurrent.futures import ThreadPoolExecutor

import cloudpickle

from worldmodels.execution.environments import Environments


class Backwards:
    """Each thread keeps environments of its own. ``sizes``: how many chunks came together; ``closed``: how often."""

    sizes: list[int] = []
    closed = 0

    def __init__(self):
        self._own, self._made = threading.local(), []
        self._threads = ThreadPoolExecutor(2)

    def divide(self, episodes, together):
        return -(-episodes // together)

    def map(self, chunks):
        chunks = [cloudpickle.dumps(chunk) for chunk in chunks]
        self.sizes.append(len(chunks))
        waiting = [self._threads.submit(self._done, chunk) for chunk in reversed(chunks)]
        return iter([one.result() for one in reversed(waiting)])

    def _done(self, chunk):
        if not hasattr(self._own, "environments"):
            self._own.environments = Environments()
            self._made.append(self._own.environments)
        return cloudpickle.loads(chunk)(self._own.environments)

    def release(self):
        for environments in self._made:
            environments.close()

    def close(self):
        self._threads.shutdown()
        self.release()
        type(self).closed += 1
'''


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch's products then do not depend on how many threads a chunk's own thread was left."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_an_executor_is_a_class_and_one_line_and_changes_no_result(
    my_world: Path, tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dream_fitness, "_ROWS", 4)  # dreams come in several chunks too
    with importable(my_world, my_executor=_EXECUTOR), registered(EXECUTORS, "backwards", "my_executor:Backwards"):
        command = ["train", "my-world", "--preset", "tiny", "--device", "cpu"]
        assert main([*command, "--run", str(tmp_path / "local"), "--executor", "local"]) == 0
        assert "my_executor" not in sys.modules
        assert main([*command, "--run", str(tmp_path / "theirs-run"), "--executor", "backwards"]) == 0
        theirs = sys.modules["my_executor"].Backwards
        learnt = [name for name in cases.STAGES if name != "evaluate"]
        assert cases.digests(tmp_path / "local", learnt) == cases.digests(tmp_path / "theirs-run", learnt)
        scores = [RunReader(tmp_path / name).evaluation()["returns"] for name in ("local", "theirs-run")]
        assert scores[0] == scores[1] and len(scores[0]) == 5
        # Three shards; fitness of 4 x 2 rows in two chunks and one validation, twice; as much in dreams, whose phase
        # also validates where it starts; and five episodes of evaluation, two at a time.
        assert theirs.sizes == [1, 1, 1, *[2, 1] * 2, 1, *[2, 1] * 2, 3]
        assert theirs.closed == 1
        assert main(["ablate", "my-world", "--run", str(tmp_path / "local"), "--executor", "backward"]) == 1


def test_an_evaluation_by_another_executor_gives_the_same_scores(my_world: Path, tmp_path: Path) -> None:
    with importable(my_world, my_executor=_EXECUTOR), registered(EXECUTORS, "backwards", "my_executor:Backwards"):
        task = get_task("my-world")
        scores = []
        for name in ("local", "backwards"):
            with contextlib.closing(EXECUTORS.get(name)()) as executor:
                scores.append(evaluate(executor, task, task.random_policy, "array", range(20), 3).returns)
        assert np.array_equal(*scores) and len(set(scores[0].tolist())) > 10


# --- a format ------------------------------------------------------------------------------------------------

_FORMAT = '''
"""Episodes as JSON, one a file."""

import json

import numpy as np

from worldmodels.data.episodes import Episode


class Json:
    def write(self, episodes, directory):
        directory.mkdir(parents=True, exist_ok=True)
        count = 0
        for count, one in enumerate(episodes, start=1):
            shown = {name: getattr(one, name).tolist() for name in ("frames", "actions", "rewards")}
            rest = {"terminated": one.terminated, "seed": one.seed, "renderer": one.renderer}
            (directory / f"{count:03d}.json").write_text(json.dumps(shown | rest))
        return count

    def read(self, directory):
        for path in sorted(directory.glob("*.json")):
            content = json.loads(path.read_text())
            kinds = {"frames": np.uint8, "actions": np.float32, "rewards": np.float32}
            yield Episode(**content | {name: np.array(content[name], kind) for name, kind in kinds.items()})
'''


def test_an_episode_format_is_a_class_and_one_line(tmp_path: Path) -> None:
    episodes = scripted_episodes([30, 31, 37])
    with importable(tmp_path, my_format=_FORMAT), registered(FORMATS, "json", "my_format:Json"):
        assert episode_format("json").write(iter(episodes), tmp_path / "data") == 3
        found = list(episode_format("json").read(tmp_path / "data"))
    for mine, theirs in zip(found, episodes, strict=True):
        for name in ("frames", "actions", "rewards"):
            one, other = getattr(mine, name), getattr(theirs, name)
            assert one.dtype == other.dtype and np.array_equal(one, other)
        assert replace(mine, frames=0, actions=0, rewards=0) == replace(theirs, frames=0, actions=0, rewards=0)


# --- by entry point ------------------------------------------------------------------------------------------

_ENTRY_POINTS = """
[worldmodels.tasks]
my-world = my_world:MyWorld

[worldmodels.visions]
blocks = my_vision:Blocks

[worldmodels.executors]
backwards = my_executor:Backwards

[worldmodels.episode_formats]
json = my_format:Json
"""

_FIND = """
from worldmodels.data.exchange import FORMATS
from worldmodels.execution.executor import EXECUTORS
from worldmodels.tasks import TASKS, get_task
from worldmodels.vision.base import VISIONS
for registry, name in ((TASKS, "my-world"), (VISIONS, "blocks"), (EXECUTORS, "backwards"), (FORMATS, "json")):
    print(name in registry.names(), registry.get(name).__name__)
print(get_task("my-world").title)
"""


def test_an_installed_package_brings_its_own_by_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    info = site / "my_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(_ENTRY_POINTS)
    modules = {"my_world": _WORLD, "my_vision": _VISION, "my_executor": _EXECUTOR, "my_format": _FORMAT}
    for name, text in modules.items():
        (site / f"{name}.py").write_text(text)
    (site / "presets.toml").write_text(_PRESETS)
    monkeypatch.setenv("PYTHONPATH", str(site))

    def python(*arguments: str) -> str:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = python("-c", _FIND).splitlines()
    assert found == ["True MyWorld", "True Blocks", "True Backwards", "True Json", "My world"]
    run = tmp_path / "run"
    python("-m", "worldmodels", "collect", "my-world", "--preset", "tiny", "--run", str(run), "--executor", "backwards")
    assert len(list(RunReader(run).episodes())) == 30
