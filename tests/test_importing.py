"""Importing the package, loading an agent and the command itself change nothing in the process that they share."""

import subprocess
import sys

import pytest

import worldmodels

LIGHT = (
    "torch",
    "numpy",
    "gymnasium",
    "tyro",
    "zarr",
    "PIL",
    "matplotlib",
    "rich",
    "safetensors",
    "tensorboard",
    "cma",
)
STATE = """
import os, random, signal, sys, threading, warnings

def state():
    found = {
        "environment": dict(os.environ),
        "import hooks": list(map(repr, sys.meta_path)) + list(map(repr, sys.path_hooks)),
        "search path": list(sys.path),
        "folder": os.getcwd(),
        "warnings": list(map(repr, warnings.filters)),
        "signals": [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)],
        "threads": [one.name for one in threading.enumerate()],
        "recursion": sys.getrecursionlimit(),
        "random": random.getstate(),
    }
    if "torch" in sys.modules:
        import numpy, torch
        found["torch's threads"] = torch.get_num_threads(), torch.get_num_interop_threads()
        found["torch's numbers"] = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_default_device()
        found["torch's precision"] = torch.get_float32_matmul_precision()
        found["torch's order"] = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
        found["torch's stream"] = torch.get_rng_state().tolist()
        found["numpy's stream"] = [str(part) for part in numpy.random.get_state()]
    return found

def compare(before):
    after = state()
    changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    assert not changed, changed
"""


def ran(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", STATE + code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def test_importing_the_package_changes_nothing_and_imports_nothing_heavy() -> None:
    code = f"""
before = state()
import worldmodels
compare(before)
assert worldmodels.__version__ and "load_agent" in dir(worldmodels)
print(*sorted(set({LIGHT!r}) & set(sys.modules)))
"""
    assert ran(code) == ""


@pytest.mark.parametrize("name", ["car-racing", "take-cover"])
def test_loading_an_agent_changes_nothing(name: str) -> None:
    code = f"""
import gymnasium, safetensors.torch, torch.nn.functional
torch.set_num_threads(1)
os.environ.pop("OMP_NUM_THREADS", None)
before = state()
import worldmodels
agent = worldmodels.load_agent({name!r})
compare(before)
agent.policy(2)
compare(before)
"""
    ran(code)


def test_an_agent_that_acts_gives_the_threads_back() -> None:
    code = """
import numpy, torch
from worldmodels import load_agent

agent = load_agent("car-racing")
torch.set_num_threads(2)
before = state()
agent.policy(1).act(numpy.zeros((1, 96, 96, 3), numpy.uint8))
compare(before)
"""
    ran(code)


def test_no_module_of_the_package_changes_anything_when_it_is_imported() -> None:
    """What they import of others comes first."""
    code = """
import importlib, pkgutil
import gymnasium.vector, imageio, matplotlib.pyplot, numpy, PIL.Image, rich.console
import safetensors.torch, tensorboard, torch, tyro, zarr

import worldmodels

names = [one.name for one in pkgutil.walk_packages(worldmodels.__path__, "worldmodels.")]
others = "__main__", "rainbow", "stable_baselines"  # the command itself, and what an extra brings
names = [name for name in names if not any(other in name for other in others)]
assert len(names) > 100
for name in names:
    before = state()
    importlib.import_module(name)
    try:
        compare(before)
    except AssertionError as error:
        raise AssertionError(f"importing {name} changed {error}") from None
"""
    ran(code)


@pytest.mark.parametrize("words", [["-m", "worldmodels"], ["-m", "worldmodels.cli.main"]])
def test_the_package_is_a_command(words: list[str]) -> None:
    done = subprocess.run([sys.executable, *words, "--version"], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"worldmodels {worldmodels.__version__}\n", "")
    done = subprocess.run([sys.executable, *words, "nonsense"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and done.stderr.startswith("worldmodels: unknown verb 'nonsense'")


def test_the_command_says_how_many_threads_there_are_and_leaves_what_the_person_has_said() -> None:
    code = """
from worldmodels.cli.main import main

given = dict(os.environ)
assert main(["doctor", "--help-me"]) == 2
added = {name: value for name, value in os.environ.items() if given.get(name) != value}
print(sorted(added))
"""
    done = {}
    for said in (
        {},
        {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "3"},
        {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "active"},
    ):
        setting = "".join(f"os.environ[{name!r}] = {value!r}\n" for name, value in said.items())
        clean = "for name in ('OMP_NUM_THREADS', 'GOMP_SPINCOUNT', 'OMP_WAIT_POLICY'): os.environ.pop(name, None)\n"
        done[tuple(said)] = ran(clean + setting + code)
    assert list(done.values()) == ["['GOMP_SPINCOUNT', 'OMP_NUM_THREADS']", "[]", "[]"]
