"""Publishing an agent on the hub, and fetching one from there."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodels.agent import AGENT_FILE, Agent, load_agent
from worldmodels.core.errors import UserError
from worldmodels.core.files import json_bytes, new_directory, read_json
from worldmodels.core.provenance import versions
from worldmodels.core.storage.hub import ORIGIN_FILE, HubName, downloaded, upload
from worldmodels.run.model_card import model_card
from worldmodels.run.reader import RunReader
from worldmodels.run.run import read_config

_SCORES = ("task", "mean", "sd", "median", "ci95", "episodes", "steps", "backend", "device", "cut_short", "returns")


def publish(
    agent_name: str, repo: str, scores_file: Path | None = None, license_name: str = "mit", private: bool = False
) -> tuple[str, str]:
    """Publish an agent with its page and its scores; returns its repository and the commit.

    agent_name: as for :func:`load_agent`; scores_file: JSON of ``worldmodels evaluate --json`` (None: for a run those
    of its evaluation). Raises :class:`UserError` for an agent that cannot be used, scores of another task, and if the
    hub refuses.
    """
    name, agent = HubName.of(repo), load_agent(agent_name)
    scores = _scores(agent_name, agent, scores_file)
    about = {
        "task": agent.task.name,
        "vision": agent.vision.name,
        "latent_size": agent.vision.latent_size,
        "hidden_size": agent.memory.hidden_size,
        "inputs": list(agent.inputs.names),
        "parameters": len(agent.controller),
        "digest": agent.digest(),
        "info": agent.info,
        "published_with": versions(),
    }
    with tempfile.TemporaryDirectory(prefix="worldmodels-") as folder:
        agent.save(folder)
        files: dict[str, bytes | Path] = {
            AGENT_FILE: Path(folder) / AGENT_FILE,
            "agent.json": json_bytes(about),
            "README.md": model_card(agent, name.repo, scores, license_name).encode(),
        }
        if scores is not None:
            files["scores.json"] = json_bytes(scores)
        commit = upload(str(name), files, f"An agent for {agent.task.title}", private)
    return name.repo, commit


def _scores(agent_name: str, agent: Agent, file: Path | None) -> Mapping[str, Any] | None:
    """The scores to publish, checked; None if there are none."""
    if file is not None:
        content = read_json(file)
    elif "://" not in agent_name and read_config(Path(agent_name)) is not None:
        content = RunReader(agent_name).evaluation()
    else:
        return None
    if not isinstance(content, dict) or not all(key in content for key in _SCORES):
        raise UserError(f"{file or agent_name} holds no scores; expected the JSON of: worldmodels evaluate --json FILE")
    if content["task"] != agent.task.name:
        raise UserError(f"the scores are of {content['task']}, but the agent is for {agent.task.name}")
    return content


def fetch_agent(text: str, out: Path | None) -> tuple[Path, HubName]:
    """Copy an agent of the hub into a new folder (None: named like the agent); returns it and the pinned name.

    It is loaded and checked first. Raises :class:`UserError` if the folder exists and holds another agent.
    """
    name = HubName.of(text)
    path = downloaded(str(name), AGENT_FILE)
    load_agent(path)
    pinned = HubName(name.repo, str(read_json(path.with_name(ORIGIN_FILE))["revision"]))
    target = out or Path(name.repo.partition("/")[2])
    if target.exists():
        if (target / AGENT_FILE).is_file() and (target / AGENT_FILE).read_bytes() == path.read_bytes():
            return target, pinned
        raise UserError(f"{target} exists and holds something else; choose another --out")
    with new_directory(target) as folder:
        for file in (AGENT_FILE, ORIGIN_FILE):
            shutil.copyfile(path.with_name(file), folder / file)
    return target, pinned
