"""The verbs: their options as dataclasses (tyro makes the help of them), and the call into the package."""

from worldmodels.commands.figures import bench, doctor, evaluate, probe
from worldmodels.commands.runs import ablate, demo, stage, train
from worldmodels.commands.watch import dream, play, record

__all__ = ["ablate", "bench", "demo", "doctor", "dream", "evaluate", "play", "probe", "record", "stage", "train"]
