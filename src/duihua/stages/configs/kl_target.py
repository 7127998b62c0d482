"""The one rule for KL targets that all methods with a steered coefficient share. No torch here."""

from __future__ import annotations

from duihua.errors import ConfigError


def check_kl_target(target: float | None, coefficient: float, usual: float) -> None:
    """Refuse a target of 0 or less, and one that a coefficient of 0 could never reach. usual: a coefficient to start from."""
    if target is None:
        return
    if not target > 0:
        raise ConfigError(
            f"a policy that learns is at some distance from its reference, found a target of {target:g} nats",
            where="kl_target",
            remedy="Leave it out for a fixed coefficient, or set nats a reply, such as 6",
        )
    if not coefficient:
        raise ConfigError(
            "a coefficient of 0 stays 0 however it is steered", where="kl_coefficient", remedy=f"Start from {usual:g}"
        )
