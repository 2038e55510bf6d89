"""The page of a published agent: what it is, what it scores under which conditions, and how to use it."""

import json
from collections.abc import Mapping
from typing import Any

from worldmodels.agent import Agent
from worldmodels.core.numbers import score_text
from worldmodels.evaluation import finished_text, goal_of, limit_note

_INSTALL = "pip install worldmodels"


def model_card(agent: Agent, repo: str, scores: Mapping[str, Any] | None, license_name: str) -> str:
    """The page in Markdown, with the front matter of the hub.

    repo: OWNER/NAME; scores: what :func:`worldmodels.evaluation.report` returned, or None.
    """
    complete = scores is not None and not scores.get("cut_short")
    kind = "small" if agent.layout.hidden else "linear"
    front: dict[str, Any] = {
        "license": license_name,
        "library_name": "worldmodels",
        "pipeline_tag": "reinforcement-learning",
        "tags": ["reinforcement-learning", "world-models", "safetensors", agent.task.name],
    }
    if scores is not None and complete:
        spread = "" if scores["sd"] is None else f" +/- {score_text(scores['sd'], scores['mean'])}"
        front["model-index"] = [{"name": repo.partition("/")[2], "results": [_result(agent, scores, spread)]}]
    # Every JSON value is one of YAML, and quoted as one.
    lines = [f"{name}: {json.dumps(value, ensure_ascii=True)}" for name, value in front.items()]
    parts = [
        "\n".join(["---", *lines, "---"]),
        f"# {repo.partition('/')[2]}",
        f"A World Models agent (Ha & Schmidhuber, 2018) for {agent.task.title}: a VAE that sees (V), an MDN-RNN that "
        f"predicts (M) and a {kind} controller (C). It was trained with `worldmodels`.",
        _table(_facts(agent)),
        "## Score",
        "No score was given." if scores is None else _table(_score(scores)),
        "## Use",
        f"```bash\n{_INSTALL}\nworldmodels evaluate --agent hf://{repo}\nworldmodels record --agent hf://{repo}\n```",
        "```python\nimport worldmodels\n\n"
        f'agent = worldmodels.load_agent("hf://{repo}")\npolicy = agent.policy(num_envs=1)\n```',
        "The weights are safetensors and the rest is JSON: loading the agent runs no code from here.",
    ]
    return "\n\n".join(parts) + "\n"


def _result(agent: Agent, scores: Mapping[str, Any], spread: str) -> dict[str, Any]:
    return {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {"type": agent.task.name, "name": agent.task.title},
        "metrics": [
            {
                "type": "mean_reward",
                "value": f"{score_text(scores['mean'])}{spread}",
                "name": f"mean return of {scores['episodes']} episodes",
                "verified": False,
            }
        ],
    }


def _facts(agent: Agent) -> dict[str, str]:
    hidden = f", {agent.layout.hidden} hidden units" if agent.layout.hidden else ""
    facts = {
        "task": agent.task.name,
        "V": f"{agent.vision.name}, {agent.vision.latent_size} latents",
        "M": f"{agent.memory.hidden_size} hidden units, {agent.memory.mixtures} mixtures",
        "C": f"{len(agent.controller):,} parameters, inputs {' '.join(agent.inputs.names) or 'none'}{hidden}",
        "digest": agent.digest(),
    }
    names = ("preset", "seed", "round", "memory_dropout", "dream_dropout")
    known = {name.replace("_", " "): agent.info[name] for name in names if name in agent.info}
    return facts | {name: str(value) for name, value in known.items()}


def _score(scores: Mapping[str, Any]) -> dict[str, str]:
    interval = scores["ci95"]
    rows = {
        "mean return": score_text(scores["mean"]),
        "95% interval": "n/a" if interval is None else " to ".join(score_text(end, scores["mean"]) for end in interval),
        "sd": "n/a" if scores["sd"] is None else score_text(scores["sd"], scores["mean"]),
        "median": score_text(scores["median"], scores["mean"]),
        "episodes": f"{scores['episodes']:,}, of at most {scores['steps']:,} steps",
        "backend": f"{scores['backend']}, {scores['device']}",
    }
    finished = {goal_of(scores): finished_text(scores)} if goal_of(scores) else {}
    note = limit_note(scores)
    versions = scores.get("made_with", {}).get("versions", {})
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return rows | finished | ({"note": note} if note else {}) | ({"versions": named} if named else {})


def _table(rows: Mapping[str, str]) -> str:
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _cell(text: str) -> str:
    """Text that cannot end its cell, nor be markup."""
    plain = "".join(one if one.isprintable() else " " for one in str(text))
    return plain.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")
