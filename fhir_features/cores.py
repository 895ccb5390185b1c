"""How many cores may this process use? Where it was given fewer than the machine has, threads for all would wait for
each other: a sort by two threads on one core took twice the CPU of one."""

from __future__ import annotations

import os


def cores() -> int:
    """The number of cores that this process may run on."""
    return len(os.sched_getaffinity(0))
