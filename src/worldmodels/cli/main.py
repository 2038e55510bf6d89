"""The command line: parse, call a stage, print. Everything heavy is imported inside the verb that needs it."""

import importlib
import os
import sys

_VERBS = {
    "demo": ("runs:demo", "train the quick preset end to end and show its agent next to the shipped one"),
    "train": ("runs:train", "every stage in order, from an empty folder to an evaluated agent"),
    "collect": ("runs:stage", "stage 1: record episodes"),
    "vision": ("runs:stage", "stage 2: train V, the autoencoder"),
    "encode": ("runs:stage", "stage 3: turn every frame into latents"),
    "memory": ("runs:stage", "stage 4: train M, the MDN-RNN"),
    "controller": ("runs:stage", "stage 5: evolve C"),
    "evaluate": ("measure:evaluate", "score an agent, a run or the random policy on fresh episodes"),
    "ablate": ("runs:ablate", "what V alone, an untrained M, a mask or dreams alone are worth"),
    "record": ("watch:record", "a video of the world, what V sees of it and what M expected"),
    "play": ("watch:play", "play a world yourself, in a window"),
    "dream": ("watch:dream", "report, play or record: the world that M dreams"),
    "probe": ("measure:probe", "how much of the world's state can be read linearly off V"),
    "bench": ("measure:bench", "how fast acting and training are, against a bound and a baseline"),
    "doctor": ("measure:doctor", "what this machine has, what works and what to install"),
}
"""Where each verb is found in this room, and what it does."""


def _help() -> str:
    lines = "\n".join(f"  {verb:<12}{text}" for verb, (_, text) in _VERBS.items())
    return (
        "usage: worldmodels VERB [TASK] [OPTIONS]\n\n"
        "World Models: V sees, M dreams, C acts (Ha & Schmidhuber 2018).\n\n"
        f"verbs:\n{lines}\n\n"
        "tasks:\n  car-racing, take-cover, bin-packing, or one of yours\n\n"
        "examples:\n"
        "  worldmodels train car-racing --preset quick --run runs/first\n"
        "  worldmodels evaluate car-racing --episodes 100 --seed 1\n"
        "  worldmodels record car-racing --out drive.mp4\n\n"
        "worldmodels VERB --help lists the options of a verb; --version prints the version."
    )


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit status. Errors for people are one line on stderr, without a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    from worldmodels.core.errors import UsageError, UserError

    try:
        return _dispatch(arguments)
    except UserError as error:
        return _fail(str(error), 2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        return 0
    except Exception as error:
        if os.environ.get("WORLDMODELS_DEBUG"):
            raise
        return _unexpected(error)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb in ("--version", "-V"):
        from worldmodels import __version__

        print(f"worldmodels {__version__}")
        return 0
    if verb not in _VERBS:
        import difflib

        close = difflib.get_close_matches(verb, _VERBS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "see worldmodels --help"
        return _fail(f"unknown verb {verb!r}; {hint}", 2)
    from worldmodels.core import interrupt

    _prepare_threads()
    place, description = _VERBS[verb]
    module, _, name = place.partition(":")
    function = getattr(importlib.import_module(f"worldmodels.cli.{module}"), name)
    try:
        with interrupt.graceful():
            return int(function(verb, rest, f"{description[0].upper()}{description[1:]}."))
    except interrupt.Interrupted as stop:
        return _fail("stopped; everything finished so far is saved, the same command continues", stop.exit_code)


def _prepare_threads() -> None:
    """Say how PyTorch's threads behave, before it is imported; what the environment says already counts."""
    from worldmodels.core.cores import usable_cores

    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    # Idle threads spin for milliseconds by default, and take the cores from the simulator's threads.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _fail(text: str, status: int) -> int:
    print(f"worldmodels: {' '.join(text.split())}", file=sys.stderr)
    return status


def _unexpected(error: Exception) -> int:
    import errno

    text = str(error).strip() or "no message"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return _fail(f"could not write: {error.strerror}; free space and run the same command again", 1)
    if isinstance(error, OSError) and error.filename is not None:
        return _fail(f"cannot use {error.filename}: {error.strerror}; repair that and run the same command again", 1)
    # What NumPy, PyTorch on the processor and PyTorch on a GPU say.
    if isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text:
        return _fail("out of memory; use fewer environments (--collect.num-envs) or a smaller preset", 1)
    return _fail(
        f"unexpected {type(error).__name__}: {text.splitlines()[0]}; this is a bug: please report it with the "
        "output of the same command under WORLDMODELS_DEBUG=1",
        1,
    )


if __name__ == "__main__":
    sys.exit(main())
