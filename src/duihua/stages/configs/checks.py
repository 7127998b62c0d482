"""Checks of numbers that several configs share. No torch here."""

from __future__ import annotations

from typing import Any

from duihua.errors import ConfigError


def at_least_one(config: Any, *names: str) -> None:
    """Raise ConfigError for the first of these fields that is below 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise ConfigError(
                f"must be at least 1, found {getattr(config, name)}",
                where=name,
                remedy="Set it to 1 or more, or leave it out",
            )


def not_negative(config: Any, *names: str) -> None:
    """Raise ConfigError for the first of these fields that is below 0."""
    for name in names:
        if getattr(config, name) < 0:
            raise ConfigError(
                f"cannot be negative, found {getattr(config, name)}",
                where=name,
                remedy="Set 0 or more, or leave it out",
            )


def above_zero(config: Any, *names: str) -> None:
    """Raise ConfigError for the first of these fields that is 0 or below."""
    for name in names:
        if getattr(config, name) <= 0:
            raise ConfigError(
                f"must be above 0, found {getattr(config, name)}",
                where=name,
                remedy="Set a larger number, or leave it out",
            )


def no_dropout(config: Any, method: str) -> None:
    """Raise ConfigError for adapters with dropout: the method compares two forwards of the same weights."""
    if config.lora is not None and config.lora.dropout:
        raise ConfigError(
            f"{method} compares two forwards of the same weights, found a dropout of {config.lora.dropout}",
            where="lora.dropout",
            remedy="Set it to 0",
        )


def require_sources(config: Any) -> None:
    """Raise ConfigError where nothing says which prompts are answered."""
    if not config.sources:
        raise ConfigError("there is no source of prompts", where="sources", remedy="Name at least one")
