"""The stages of a run and their folders. This module is fast to import."""

STAGES = ("collect", "vision", "encode", "memory", "controller", "evaluate")
"""The stages of a round in their order; only the last round is evaluated."""
FOLDERS = {
    "collect": "episodes",
    "vision": "vision",
    "encode": "latents",
    "memory": "memory",
    "controller": "controller",
    "evaluate": "evaluation",
}
"""The folder of each stage."""
LAYOUT = 2
"""Version of the settings and folders of a run; those of another version are refused."""


def stages_of(round_number: int, rounds: int) -> tuple[str, ...]:
    """The stages of a round of a run that has ``rounds`` rounds."""
    return STAGES if round_number >= rounds else STAGES[:-1]


VARIANTS = ("v-only", "v-only-hidden", "z-h", "z-c-h", "untrained-m", "mask-only", "dream-only")
"""The ablations of a run, in the order of the table."""
