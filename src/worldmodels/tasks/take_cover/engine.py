"""A script that becomes ViZDoom's engine, which the kernel then kills when the process that plays it dies (Linux).

ViZDoom starts it instead of the engine: ``python -IS engine.py PLAYER ENGINE ARGUMENT...``, with the process id of the
player. Without it, an engine whose player was killed would wait for the next action for ever.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(player: str, engine: str, *arguments: str) -> None:
    """Ask for SIGKILL at the player's death, and become the engine.

    The kernel sends the signal when the thread dies that started this process. That is a thread of ViZDoom, which waits
    for the engine to end and so lives as long as the game.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), *(ctypes.c_ulong(0) for _ in range(3)))
    if os.getppid() != int(player):
        sys.exit("the process that plays this game died before the game started")
    os.execv(engine, [engine, *arguments])


if __name__ == "__main__":
    main(*sys.argv[1:])
