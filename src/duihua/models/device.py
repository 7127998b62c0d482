"""Which device a command may ask for.

Why checked before torch is asked: torch answers a wrong name or a missing GPU with an assertion of its own, which a user
would see as a fault of ours. Every way to a device (a stage, a bundle that is loaded) passes here.
"""

from __future__ import annotations

import re

from duihua.errors import ConfigError
from duihua.interrupts import signals_wait


def check_device(device: str) -> None:
    """Raise ConfigError unless `device` is cpu, cuda or cuda:N and torch can use it."""
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if match is None:
        raise ConfigError(f"unknown device {device!r}", where="--device", remedy="Use cpu, cuda or cuda:N")
    if device == "cpu":
        return
    with signals_wait():
        import torch

    if not torch.cuda.is_available():
        raise ConfigError(
            "torch sees no CUDA device",
            where=f"--device {device}",
            remedy="Use --device cpu, or install a CUDA build of torch; `duihua doctor` shows what is there",
        )
    count = torch.cuda.device_count()
    if match.group(1) is not None and int(match.group(1)) >= count:
        raise ConfigError(f"this machine has {count} CUDA devices", where=f"--device {device}", remedy="Count from 0")
