"""The entry point of the command line: finds the verb, calls it, and turns errors into one line and an exit status."""

import contextlib
import importlib
import io
import os
import sys

_VERBS = {
    "watch": ("watch:watch", "watch the shipped agent play: in a window, or without a screen in a short film"),
    "demo": ("runs:demo", "train the quick preset end to end and show its agent next to the shipped one"),
    "train": ("runs:train", "run every stage in order, from an empty folder to an evaluated agent"),
    "collect": ("runs:stage", "stage 1: record episodes"),
    "vision": ("runs:stage", "stage 2: train V, the autoencoder"),
    "encode": ("runs:stage", "stage 3: encode every frame with V"),
    "memory": ("runs:stage", "stage 4: train M, the MDN-RNN"),
    "controller": ("runs:stage", "stage 5: evolve C"),
    "evaluate": ("measure:evaluate", "score an agent, a run or the random policy on fresh episodes"),
    "ablate": ("runs:ablate", "score ablations: V alone, an untrained M, the action mask or dreams alone"),
    "record": ("watch:record", "record a video of the world, V's reconstruction and M's prediction"),
    "play": ("watch:play", "play a world yourself, in a window"),
    "dream": ("watch:dream", "play in the dreams of M, record them or report on their fidelity"),
    "probe": ("measure:probe", "measure how well V's latents predict the world's state linearly"),
    "bench": ("measure:bench", "measure the speed of acting and training against a bound and a baseline"),
    "doctor": ("measure:doctor", "check what this machine has, what works and what to install"),
}
"""For each verb, the module of this package and the function that runs it, and what the verb does."""


def _help() -> str:
    lines = "\n".join(f"  {verb:<12}{text}" for verb, (_, text) in _VERBS.items())
    return (
        "usage: worldmodels VERB [TASK] [OPTIONS]\n\n"
        "World Models: V sees, M dreams, C acts (Ha & Schmidhuber 2018).\n\n"
        f"verbs:\n{lines}\n\n"
        "tasks:\n  car-racing, take-cover, bin-packing, or one of your own\n\n"
        "examples:\n"
        "  worldmodels watch car-racing\n"
        "  worldmodels train car-racing --preset quick --run runs/first\n"
        "  worldmodels evaluate car-racing --episodes 100 --seed 1\n"
        "  worldmodels record car-racing --out drive.mp4\n\n"
        "worldmodels VERB --help lists the options of a verb; --version prints the version."
    )


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit status.

    Errors are one line on stderr. With WORLDMODELS_DEBUG=1, unexpected errors are shown with their traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A table that is cut in a narrow terminal ends with a sign that not every encoding has.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    from worldmodels.core.errors import UsageError, UserError

    try:
        status = _dispatch(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except UserError as error:
        return _fail(str(error), 2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader of stdout has ended: what is left to print goes nowhere, and a shell sees that it was not all.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
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
    """Configure PyTorch's threads, before it is imported; environment variables that are already set are kept."""
    from worldmodels.core.cores import usable_cores

    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    # Idle threads spin for milliseconds by default, and take the cores from the simulator's threads.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _fail(text: str, status: int) -> int:
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(f"worldmodels: {' '.join(text.split())}", file=sys.stderr, flush=True)
    return status


def _unexpected(error: Exception) -> int:
    import errno

    text = str(error).strip() or "no message"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return _fail(f"could not write: {error.strerror}; free space and run the same command again", 1)
    if isinstance(error, OSError) and error.filename is not None:
        return _fail(f"cannot use {error.filename}: {error.strerror}; repair that and run the same command again", 1)
    # The messages of NumPy, of PyTorch on a CPU and of PyTorch on a GPU.
    if isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text:
        return _fail("out of memory; use fewer environments (--collect.num-envs) or a smaller preset", 1)
    return _fail(
        f"unexpected {type(error).__name__}: {text.splitlines()[0]}; this is a bug: please report it with the "
        "output of the same command under WORLDMODELS_DEBUG=1",
        1,
    )


if __name__ == "__main__":
    sys.exit(main())
