"""What torchrun says to a process: how many ranks there are, and which of them this is. No torch here, for help's sake.

torchrun sets WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT in the environment of each process it starts; so do
other launchers (SLURM's srun with a line of shell, Kubernetes' training operator), and nothing else is read here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from duihua.errors import ConfigError

NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def launched_ranks(environment: Mapping[str, str] = os.environ) -> int:
    """The number of ranks that were started together; 1 for a process that was started by itself.

    Raises ConfigError where there are several and the environment does not say all that a rank must know.
    """
    count = _number(environment, "WORLD_SIZE", 1)
    missing = [name for name in NEEDED if count > 1 and name not in environment]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {count}, and {', '.join(missing)} is not set",
            where="environment",
            remedy="Start with torchrun, or unset WORLD_SIZE",
        )
    return count


def local_rank(environment: Mapping[str, str] = os.environ) -> int:
    """The number of this rank among those of its machine, which is the number of its GPU."""
    return _number(environment, "LOCAL_RANK", 0)


def launch_words(environment: Mapping[str, str] = os.environ) -> list[str]:
    """How this process was started, for a message that says how to go on."""
    if launched_ranks(environment) == 1:
        return ["duihua"]
    return ["torchrun", "--nproc-per-node", str(_number(environment, "LOCAL_WORLD_SIZE", 1)), "-m", "duihua"]


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not text.isdecimal():
        raise ConfigError(
            f"must be a whole number, found {text!r}",
            where=f"environment, {name}",
            remedy="Start the ranks with torchrun, which sets it",
        )
    return int(text)
