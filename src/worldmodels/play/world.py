"""Playing in the real world with arrow keys or by the agent; finished episodes can be saved as data."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.numbers import score_text
from worldmodels.play.recording import Recording
from worldmodels.play.scene import Panel, ScenePainter
from worldmodels.play.viewer import WORLD_PANEL, Viewer, action_help, agent_for, steering_help
from worldmodels.render.stock import stock_env, visible
from worldmodels.tasks import Task
from worldmodels.tasks.base import Observations, playing_of

if TYPE_CHECKING:
    from worldmodels.agent import Agent, AgentPolicy


class EpisodeViewer(Viewer):
    """Plays episodes of the stock environment, saves them if asked to, and loads the agent when it is first needed.

    A subclass calls :meth:`new_episode` at the end of its ``__init__``.
    """

    def __init__(
        self, task: Task, seed: int, save: Path | None, agent: "Agent | str | None", painter: ScenePainter
    ) -> None:
        super().__init__(task, seed, playing_of(task).episode_word, painter)
        self._recording = None if save is None else Recording(task, save)
        self._agent = agent
        self._policy: AgentPolicy | None = None
        self.env = stock_env(task)

    def _start(self) -> None:
        raw, info = self.env.reset(seed=self.seed)
        self.score, self.step = 0.0, 0
        self._living: np.ndarray | None = None
        self._observe(raw, info)
        if self._recording is not None:
            self._recording.start(self.observations)
        if self._policy is not None:
            self._policy.reset()

    def _observe(self, raw: np.ndarray, info: Mapping[str, Any]) -> None:
        health = np.array([info["health"]], np.float32) if "health" in info else None
        self.observations = Observations(self.task, raw[None], health)
        self._picture: np.ndarray | None = None

    def _toggle_agent(self) -> None:
        if self._policy is None:
            try:
                self._policy = agent_for(self.task, self._agent).policy(1)
                self._policy.join(self.step)
            except UserError as error:
                self.message = str(error)
                say(self.message)
                return
        super()._toggle_agent()

    def _agent_action(self) -> Any:
        """The agent's action, or None as long as the agent has not been needed.

        It is computed at every step, also while a person acts, so that M's state is right when the agent takes over.
        """
        return None if self._policy is None else self._policy.act(self.observations)[0]

    def _step(self, action: Any) -> None:
        raw, reward, terminated, truncated, info = self.env.step(action)
        self.score += float(reward)
        self.step += 1
        self._observe(raw, info)
        if self._recording is not None:
            self._recording.step(np.asarray(action), float(reward), bool(terminated), self.observations)
        if terminated or truncated:
            self._finish()

    def _finish(self) -> None:
        self.over = True
        self.scores.append(self.score)
        say(f"episode {len(self.scores)}: score {score_text(self.score)} in {self.step} steps")
        if self._recording is not None:
            self._recording.save(self.seed)
            self.message = f"saved to {self._recording.directory}"

    def quit(self) -> None:
        """End the session; an unfinished episode is saved as one that a limit ended."""
        if self.running and self._recording is not None and self.step and not self.over:
            self._recording.save(self.seed)
            say(f"the unfinished episode, {self.step} steps, was saved to {self._recording.directory}")
        super().quit()

    def new_episode(self) -> None:
        """Start the next episode; an unfinished one is discarded."""
        discarded = self._recording is not None and self._episode >= 0 and self.step and not self.over
        super().new_episode()
        if discarded:
            say(f"the unfinished {self._word} before was not saved; esc saves an unfinished one")

    def world_readings(self) -> dict[str, str]:
        """Named values of the world, as text."""
        return {name: f"{value:.0f}" for name, value in self.playing.readings(self.env).items()}

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


class WorldViewer(EpisodeViewer):
    """The real world, in which a person holds the arrow keys and the space bar lets the agent take over.

    seed: of the first episode; save: directory of an episode store, to which finished episodes are added; agent: the
    agent that takes over, or its name or path (None: the task's shipped agent). Raises :class:`UserError` if the world
    cannot be opened.
    """

    def __init__(self, task: Task, seed: int, save: Path | None = None, agent: "Agent | str | None" = None) -> None:
        super().__init__(task, seed, save, agent, ScenePainter(WORLD_PANEL))
        self._steering, self._acting = steering_help(self.playing), action_help(self.playing)
        self.new_episode()

    @property
    def help(self) -> str:
        """What the keys do, and that they take over from the agent."""
        keys = f"p pause    enter new {self._word}    esc quit"
        if self.agent_acts:
            return f"the agent plays: {self._steering} take over    {keys}"
        return f"{self._acting}    space agent    {keys}"

    def _tick(self) -> None:
        agent_action = self._agent_action()
        self._step(agent_action if self.agent_acts else self._own_action())

    def _panels(self) -> tuple[Panel, ...]:
        if self._picture is None:
            picture = visible(self.task, np.asarray(self.env.render()))
            # A world that is over may be black, as Doom's screen is: its last living picture stays.
            if picture.any() or not self.over or self._living is None:
                self._living = picture
            self._picture = self._living
        return (Panel(self._picture),)

    def readings(self) -> dict[str, str]:
        """Score, step, time, the values of the world, and who acts."""
        rate = self.playing.frames_per_second
        time = f"{self.step / rate:.1f} / {self.task.max_steps / rate:.0f} s"
        progress = {"score": f"{self.score:.0f}", "step": f"{self.step}", "time": time}
        return {**progress, **self.world_readings(), "player": self.player}
