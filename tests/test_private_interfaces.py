"""What the package uses of its dependencies that they do not promise: it is there, and no newer version may come."""

import ast
import io
import tomllib

import pytest
import torch
from gymnasium import spaces
from packaging.requirements import Requirement

from cases import ROOT

SOURCES = sorted((ROOT / "src" / "worldmodels").rglob("*.py"))
KNOWN = {
    "_get_indices": "stable-baselines3",
    "_reset_options": "stable-baselines3",
    "_reset_seeds": "stable-baselines3",
    "_iter": "tianshou",
    "_optim": "tianshou",
    # Tried before it is used: without it, public operators do the work (tests/vision).
    "_convolution_pointwise": "",
    # Promised, for all their underscores.
    "_asdict": "",
    "_exit": "",
    "_replace": "",
}
"""Attributes that are private by name and not of this package, and whose they are."""
CAPPED = {"cma", "tensorboard", *filter(None, KNOWN.values())}


def own_names(tree: ast.AST) -> set[str]:
    """Names of the functions, classes, variables and attributes that a file makes."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.add(node.attr)
    return found


def test_every_private_attribute_of_a_dependency_that_the_source_uses_is_known_here() -> None:
    trees = [ast.parse(path.read_text()) for path in SOURCES]
    own = set().union(*map(own_names, trees))
    foreign = {
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
    } - own
    assert foreign == set(KNOWN)


def test_no_private_module_is_imported() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                names = [name for module in modules for name in module.split(".")]
                private = [name for name in names if name.startswith("_") and not name.startswith("__")]
                assert not private, f"{path}: {ast.unparse(node)}"


@pytest.mark.parametrize("name", sorted(CAPPED))
def test_the_version_of_what_is_used_privately_is_bounded_above(name: str) -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*table["dependencies"], *(line for extra in table["optional-dependencies"].values() for line in extra)]
    bounds = [one.specifier for one in map(Requirement, lines) if one.name == name]
    assert bounds and all(any(one.operator in ("<", "~=", "==") for one in bound) for bound in bounds)


def test_tianshou_counts_its_updates_and_holds_its_optimizer_where_resuming_looks() -> None:
    pytest.importorskip("tianshou")
    from worldmodels.data.rainbow.learner import _algorithm

    algorithm = _algorithm(spaces.Discrete(3), [1], torch.device("cpu"))
    assert algorithm._iter == 0
    assert isinstance(algorithm.optim._optim, torch.optim.Adam)


def test_stable_baselines_hands_indices_seeds_and_options_over_where_dreams_look() -> None:
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.vec_env import VecEnv

    assert callable(VecEnv._get_indices)
    assert callable(VecEnv._reset_seeds) and callable(VecEnv._reset_options)


def test_tensorboard_writes_records_to_any_file() -> None:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    summary = Summary(value=[Summary.Value(tag="loss", simple_value=0.5)])
    writer = RecordWriter(file)
    writer.write(Event(wall_time=1.0, step=3, summary=summary).SerializeToString())
    writer.write(Event(step=4, session_log=SessionLog(status=SessionLog.START)).SerializeToString())
    written = file.getvalue()
    # A record is its length, a checksum, its bytes and another checksum.
    size = int.from_bytes(written[:8], "little")
    event = Event.FromString(written[12 : 12 + size])
    assert (event.step, event.summary.value[0].tag, event.summary.value[0].simple_value) == (3, "loss", 0.5)
    assert len(written) > 12 + size + 4


@pytest.mark.filterwarnings("ignore")
def test_pycma_has_the_options_and_the_state_that_are_set_and_read() -> None:
    import cma

    used = {"popsize", "CMA_diagonal", "verbose", "verb_log", "verb_disp", "seed", "randn"}
    assert used <= set(cma.CMAOptions())
    strategy = cma.CMAEvolutionStrategy([0.0, 0.0], 0.5, {"verbose": -9, "verb_log": 0, "popsize": 4})
    strategy.tell(strategy.ask(), [1.0, 2.0, 3.0, 4.0])
    assert strategy.countiter == 1 and len(strategy.mean) == 2
    strategy.sigma *= 0.5
    assert strategy.sigma > 0
