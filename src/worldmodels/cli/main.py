"""The entry point of the command line: finds the verb, calls it, and turns errors into one line and an exit status."""

import importlib
import io
import os
import sys

_VERBS = {
    "watch": ("watch:watch", "watch the shipped agent play: in a window, or without a screen in a short film"),
    "demo": ("runs:demo", "train the quick preset and show its agent beside the shipped one, in 9 minutes"),
    "train": ("runs:train", "run every stage in order, from an empty folder to an evaluated agent"),
    "collect": ("runs:stage", "stage 1: record episodes"),
    "vision": ("runs:stage", "stage 2: train V, the autoencoder"),
    "encode": ("runs:stage", "stage 3: encode every frame with V"),
    "memory": ("runs:stage", "stage 4: train M, the MDN-RNN"),
    "controller": ("runs:stage", "stage 5: evolve C"),
    "evaluate": ("measure:evaluate", "score an agent, a run or the random policy on fresh episodes"),
    "runs": ("listing:runs", "list the runs below a folder: their settings, progress and scores"),
    "ablate": ("runs:ablate", "score ablations: other inputs of C, an untrained M, the action mask or dreams alone"),
    "record": ("watch:record", "record a video of the world, V's reconstruction and M's prediction"),
    "play": ("watch:play", "play a world yourself, in a window"),
    "dream": ("watch:dream", "play in the dreams of M, record them or report on their fidelity"),
    "probe": ("measure:probe", "measure how well V's latents predict the world's state linearly"),
    "import": (
        "exchange:import_",
        "take recordings as the episodes of a run, or published weights as an agent",
    ),
    "export": ("exchange:export", "write episodes, latents or an agent in the formats of other programs"),
    "sample": ("exchange:sample", "let an agent play, and write what it saw, thought and did into .npz files"),
    "sync": ("storage:sync", "copy a run, episodes or an agent from or to a bucket, verified"),
    "push": ("storage:push", "publish an agent on the Hugging Face hub, with a model card"),
    "pull": ("storage:pull", "download an agent from the Hugging Face hub"),
    "bench": ("measure:bench", "measure the speed of acting and training against a bound and a baseline"),
    "new-task": ("new_task:new_task", "write a small package with a world of your own, to be changed and installed"),
    "doctor": ("measure:doctor", "check what this machine has, what works and what to install"),
}
"""For each verb, the module of this package and the function that runs it, and what the verb does."""
_CONTINUE = ("demo", "train", "collect", "vision", "encode", "memory", "controller", "ablate", "import", "sample")
"""Verbs that continue where they were stopped; others do so with some options only."""
_NO_MEMORY = (
    "allocate memory",
    "out of memory",
    "failed to map segment",
    "bad_alloc",
    "start new thread",
    "temporarily unavailable",
)
"""Parts of the messages of NumPy, PyTorch, the dynamic linker, C++ and Python when there is too little memory."""
_LEAST_ADDRESSES = 1536 << 20
"""Bytes of address space that importing PyTorch takes with some room; with less, it ends the process without a word."""


def _help() -> str:
    lines = "\n".join(f"  {verb:<12}{text}" for verb, (_, text) in _VERBS.items())
    return (
        "usage: worldmodels VERB [TASK] [OPTIONS]\n\n"
        "World Models: V sees, M dreams, C acts (Ha & Schmidhuber 2018).\n\n"
        f"verbs:\n{lines}\n\n"
        "tasks:\n  car-racing, take-cover, bin-packing, or one of your own;\n"
        "  gym:ID, such as gym:CartPole-v1: any Gymnasium environment that shows a picture\n\n"
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
    try:
        return _status(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        return _fail("interrupted", 130)


def _status(arguments: list[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        # A table that is cut in a narrow terminal ends with a sign that not every encoding has.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    from worldmodels.core.errors import UsageError, UserError

    _open_standard_streams()
    try:
        status = _dispatch(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except UserError as error:
        return _fail(str(error), 2 if isinstance(error, UsageError) else 1)
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
    from worldmodels.cli.places import local_folders
    from worldmodels.core import interrupt

    limit = _address_limit()
    if limit is not None and limit < _LEAST_ADDRESSES:
        least = f"expected at least {_LEAST_ADDRESSES >> 20:,} MiB of address space"
        return _fail(f"{least}, this process may use {limit >> 20:,} MiB; raise the limit (ulimit -v)", 1)
    _prepare_threads()
    place, description = _VERBS[verb]
    module, _, name = place.partition(":")
    function = getattr(importlib.import_module(f"worldmodels.cli.{module}"), name)
    try:
        with interrupt.graceful(), local_folders(verb, rest) as local:
            return int(function(verb, local, f"{description[0].upper()}{description[1:]}."))
    except interrupt.Interrupted as stop:
        return _fail(f"stopped; {_what_is_left(verb, rest)}", stop.exit_code)


def _what_is_left(verb: str, arguments: list[str]) -> str:
    """What a stopped command leaves, for its last line."""

    def given(option: str) -> bool:
        return any(text == option or text.startswith(f"{option}=") for text in arguments)

    continues = verb in _CONTINUE or (verb == "dream" and "report" in arguments)
    if continues or (verb == "evaluate" and (given("--run") or given("--json"))):
        return "everything finished so far is saved, the same command continues"
    if verb == "evaluate":
        return "nothing is saved; with --json FILE, the same command would continue"
    return "the same command starts anew"


def _open_standard_streams() -> None:
    """Open standard streams that were closed (``2>&-``), so that no other file gets their numbers and their text."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
            if getattr(sys, name) is None:
                setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def _prepare_threads() -> None:
    """Configure PyTorch's threads, before it is imported; environment variables that are already set are kept."""
    from worldmodels.core.cores import usable_cores

    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    # Idle threads spin for milliseconds by default, and take the cores from the simulator's threads.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _fail(text: str, status: int) -> int:
    from worldmodels.core.terminal import show

    show(f"worldmodels: {' '.join(text.split())}")
    return status


def _unexpected(error: Exception) -> int:
    import errno

    text = str(error).strip() or "no message"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return _fail(f"could not write: {error.strerror}; free space and run the same command again", 1)
    if isinstance(error, OSError) and error.filename is not None:
        return _fail(f"cannot use {error.filename}: {error.strerror}; repair that and run the same command again", 1)
    if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
        advice = "use fewer environments (--collect.num-envs) or a smaller preset"
        limit = _address_limit()
        if limit is not None:
            advice = f"raise the limit of {limit >> 20:,} MiB of address space (ulimit -v), or {advice}"
        return _fail(f"out of memory; {advice}", 1)
    if isinstance(error, ImportError):
        what = error.name or "a package"
        return _fail(f"cannot import {what}: {text.splitlines()[0]}; install it again, see worldmodels doctor", 1)
    return _fail(
        f"unexpected {type(error).__name__}: {text.splitlines()[0]}; this is a bug: please report it with the "
        "output of the same command under WORLDMODELS_DEBUG=1",
        1,
    )


def _address_limit() -> int | None:
    """The limit of this process's address space in bytes (``ulimit -v``); None if there is none."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


if __name__ == "__main__":
    sys.exit(main())
