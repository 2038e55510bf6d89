"""The number of CPU cores that this process may use."""

import os


def usable_cores() -> int:
    """Number of CPU cores that this process may run on. Respects its affinity (taskset, cpusets) but not CPU quotas."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
