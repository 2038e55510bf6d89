"""Videos and sheets of an agent: what is shown beside which frame, and files that are whole or absent."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from gymnasium.vector import VectorWrapper

from dream_agents import dreamer
from worldmodels.agent import Agent
from worldmodels.core.errors import UserError
from worldmodels.core.interrupt import Interrupted
from worldmodels.execution.environments import make_envs
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.render.moment import Moment
from worldmodels.render.picture import Composer
from worldmodels.render.stock import visible
from worldmodels.render.video import record, watched_env
from worldmodels.render.watcher import watch
from worldmodels.tasks import get_task
from worldmodels.tasks.base import playing_of
from worldmodels.vision.conv_vae import ConvVAE


@pytest.fixture(scope="module")
def agent() -> Agent:
    torch.manual_seed(0)
    return Agent(get_task("car-racing"), ConvVAE(), MDNRNN(32, 3, 256, 5, True, True), torch.zeros(867))


def test_the_expectation_shown_beside_a_frame_was_made_one_step_before(agent: Agent) -> None:
    moments: list[Moment] = []
    env = watched_env(agent.task, "envpool")
    watch(agent, env, seed=3, max_steps=4, show=moments.append)
    env.close()
    assert [moment.step for moment in moments] == [0, 1, 2, 3, 4]
    assert moments[0].expected is None and moments[-1].action is None
    policy, score, expected = agent.policy(1), 0.0, None
    env = make_envs(agent.task, 1, "envpool")
    observations, _ = env.reset(seed=[3])
    for moment in moments[:-1]:
        assert moment.score == pytest.approx(score)
        action = policy.act(observations)
        assert (moment.seen == agent.decode(policy.latents)[0]).all()
        if moment.expected is not None:
            assert (moment.expected == expected).all()
        expected = agent.decode(policy.expected_latents())[0]
        assert moment.action is not None and (moment.action == action[0]).all()
        observations, rewards, *_ = env.step(action)
        score += float(rewards[0])
    env.close()


def test_moments_keep_their_pictures_when_the_world_draws_into_the_same_memory(agent: Agent) -> None:
    moments: list[Moment] = []
    with contextlib.closing(make_envs(agent.task, 1, "gymnasium")) as env:
        watch(agent, env, seed=3, max_steps=4, show=moments.append)
    with contextlib.closing(make_envs(agent.task, 1, "gymnasium")) as env:
        raw, _ = env.reset(seed=[3])
        for moment in moments:
            np.testing.assert_array_equal(moment.world, visible(agent.task, raw[0]))
            if moment.action is not None:
                raw, *_ = env.step(moment.action[None])
    assert len({moment.world.tobytes() for moment in moments}) == 5


@pytest.mark.parametrize(("name", "frames"), [("a.mp4", 11), ("a.gif", 3)])
def test_a_film_has_the_frames_that_its_kind_shows(agent: Agent, tmp_path: Path, name: str, frames: int) -> None:
    result = record(agent, tmp_path / name, seed=1, backend="envpool", max_steps=10)
    assert result["steps"] == 10 and result["frames"] == frames
    pictures = imageio.mimread(tmp_path / name, memtest=False)
    assert len(pictures) >= frames  # the last one is held for a moment
    assert len({picture.tobytes() for picture in pictures}) >= frames - 1
    assert pictures[0].shape[0] % 2 == pictures[0].shape[1] % 2 == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]  # no temporary file is left


@pytest.mark.parametrize("backend", ["envpool", "gymnasium"])
def test_a_sheet_shows_three_rows_and_columns_that_differ(agent: Agent, tmp_path: Path, backend: str) -> None:
    record(agent, tmp_path / "sheet.png", seed=1, backend=backend, max_steps=30)
    sheet = imageio.imread(tmp_path / "sheet.png")
    third = sheet.shape[0] // 3
    assert not np.array_equal(sheet[:third], sheet[third : 2 * third])
    worlds = {sheet[60:180, left : left + 208].tobytes() for left in range(190, sheet.shape[1] - 218, 218)}
    assert len(worlds) == 6


def test_a_sheet_of_doom_shows_different_moments(tmp_path: Path) -> None:
    pytest.importorskip("vizdoom")
    agent = dreamer("take-cover")
    record(agent, tmp_path / "sheet.png", seed=1, max_steps=24)
    sheet = imageio.imread(tmp_path / "sheet.png")
    worlds = {sheet[60:180, left : left + 208].tobytes() for left in range(190, sheet.shape[1] - 218, 218)}
    assert len(worlds) == 4


@pytest.mark.parametrize(("name", "frames"), [("a.gif", 11), ("a.png", 3)])
def test_a_world_with_a_board_is_recorded_as_people_see_it(tmp_path: Path, name: str, frames: int) -> None:
    torch.manual_seed(0)
    packer = Agent(
        get_task("bin-packing"), ConvVAE(4), MDNRNN(4, 30, 8, 2, reward=True), torch.zeros(30 * 13), inputs=("z", "h")
    )
    result = record(packer, tmp_path / name, seed=1, max_steps=10)
    assert (result["backend"], result["steps"], result["frames"]) == ("native", 10, frames)
    moments: list[Moment] = []
    env = watched_env(packer.task, "native")
    watch(packer, env, seed=1, max_steps=3, show=moments.append)
    for moment, board in zip(moments, boards(moments), strict=True):
        np.testing.assert_array_equal(moment.world, board)


def boards(moments: list[Moment]) -> Iterator[np.ndarray]:
    """The boards of an episode with the same actions, drawn from its states."""
    task = get_task("bin-packing")
    board = playing_of(task).board()
    assert board is not None
    states_task, _ = task.rule("best-fit")
    env = make_envs(states_task, 1, "native")
    states, info = env.reset(seed=[1])
    for moment in moments:
        chosen = None if moment.action is None else int(moment.action.argmax())
        yield np.asarray(board.draw(states[0], info["action_mask"][0], chosen))
        if chosen is not None:
            states, *_, info = env.step(np.array([chosen]))


def test_of_many_choices_the_chosen_one_is_named_instead_of_drawn_as_bars() -> None:
    task, blank = get_task("bin-packing"), np.zeros((64, 64, 3), np.uint8)
    feet = []
    for level in (None, 7, 17):
        action = None if level is None else task.memory_action(np.array([level]))[0]
        picture = Composer(task, 4).draw(Moment(0, 0.0, blank, blank, blank, action))
        feet.append(picture[-60:])
    assert not (feet[0] == feet[1]).all() and not (feet[1] == feet[2]).all()
    assert not (feet[2] == (0x24, 0x2A, 0x33)).all(axis=-1).any()  # the ground of a bar


@pytest.mark.parametrize(
    ("name", "text"), [("a.avi", "expected a name that ends in"), ("none/a.mp4", "does not exist"), ("", "format")]
)
def test_a_target_that_will_not_do_is_refused_before_any_work(
    agent: Agent, tmp_path: Path, name: str, text: str
) -> None:
    with pytest.raises(UserError, match=text):
        record(agent, tmp_path / name, seed=1)


def test_a_recording_that_breaks_off_leaves_the_old_film_alone(agent: Agent, tmp_path: Path) -> None:
    class Breaks(Agent):
        blocks = 0

        def decode(self, z: torch.Tensor) -> np.ndarray:
            self.blocks += 1
            if self.blocks == 2:
                raise Interrupted(signal.SIGINT)
            return super().decode(z)

    broken = Breaks(agent.task, agent.vision, agent.memory, agent.controller)
    for name in ("old.mp4", "old.gif"):
        broken.blocks = 0
        (tmp_path / name).write_bytes(b"old")
        with pytest.raises(Interrupted):
            record(broken, tmp_path / name, seed=1, backend="envpool", max_steps=60, every=1)
        assert broken.blocks == 2
        assert (tmp_path / name).read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.gif", "old.mp4"]


def test_what_a_killed_recording_left_is_swept_by_the_next_and_that_of_a_running_one_is_not(
    agent: Agent, tmp_path: Path
) -> None:
    killed = subprocess.Popen([sys.executable, "-c", "pass"])
    killed.wait()
    litter, other = tmp_path / f".film.{killed.pid}.tmp.gif", tmp_path / f".film.{os.getppid()}.tmp.gif"
    litter.touch(), other.touch()
    record(agent, tmp_path / "film.gif", 1, "envpool", 6)
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "film.gif"]


@pytest.mark.parametrize("pictures", [0, 30])
def test_an_ffmpeg_that_fails_is_said_in_one_line_without_the_temporary_name(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], pictures: int
) -> None:
    ffmpeg, films = tmp_path / "ffmpeg", tmp_path / "films"
    films.mkdir()
    size = Composer(agent.task, 32).size
    ffmpeg.write_text(
        f"#!/bin/sh\nhead -c {3 * size[0] * size[1] * pictures} >/dev/null\n"
        'for last; do :; done\necho "Error opening output $last: No space left on device" >&2\nexit 1\n'
    )
    ffmpeg.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(ffmpeg))
    with pytest.raises(UserError) as caught:
        record(agent, films / "a.mp4", seed=1, backend="envpool", max_steps=60)
    assert str(caught.value) == (
        f"could not write {films / 'a.mp4'}: ffmpeg ended early (No space left on device); "
        "free space or choose another --out"
    )
    assert not list(films.iterdir()) and "tmp" not in capfd.readouterr().err


def test_a_folder_in_which_nothing_can_be_written_is_refused_before_any_work(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The superuser, as whom tests may run, may write everywhere: what the system answers is replaced."""
    monkeypatch.setattr("worldmodels.render.target.os.access", lambda path, mode: False)
    with pytest.raises(UserError, match=f"nothing can be written into the folder {tmp_path}; choose another --out"):
        record(agent, tmp_path / "a.mp4", seed=1)
    assert capfd.readouterr().err == ""


def test_a_file_that_cannot_be_made_is_named_by_its_own_name(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(UserError, match=r"could not write .*/a\.gif: Read-only file system; free space or choose"):
        record(agent, tmp_path / "a.gif", seed=1, max_steps=2)


def test_without_ffmpeg_one_line_says_what_to_install(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match="pip install imageio-ffmpeg"):
        record(agent, tmp_path / "a.mp4", seed=1)


def test_the_film_of_a_world_that_goes_black_ends_with_its_last_living_moment() -> None:
    pytest.importorskip("vizdoom")
    agent = dreamer("take-cover")
    moments: list[Moment] = []
    with contextlib.closing(make_envs(agent.task, 1, "vizdoom")) as env:
        result = watch(agent, GoesBlack(env), seed=1, max_steps=2100, show=moments.append, stride=7)
    assert result.terminated[0] and moments[-1].action is None
    assert moments[-1].step == result.lengths[0] and moments[-1].world.any()


class GoesBlack(VectorWrapper):
    """The last observation of an episode is black, whatever the simulator shows."""

    def step(self, actions: Any) -> Any:
        after, rewards, ended, cut, info = self.env.step(actions)
        return (np.zeros_like(after) if ended.any() else after), rewards, ended, cut, info
