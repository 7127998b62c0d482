"""A stage's settings on one line of the terminal.

A stage has some hundred settings and a user has set five of them: a line that named all would be read by nobody. So only
what differs from the defaults is said; everything, defaults included, is in the stage's settings.json and in the report.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from duihua.config import to_mapping


def settings_line(config: dict[str, Any], defaults: dict[str, Any] | None = None) -> str:
    """The settings of a stage on one line: those that are set, and of these only what differs from `defaults`.

    All of them, defaults included, are in the stage's settings.json and in the report.
    """
    return ", ".join(_flat(_changed(config, defaults or {}))) or "defaults"


def defaults_of(config: Any) -> dict[str, Any]:
    """What the config's own class would have, as a mapping."""
    return to_mapping(type(config)())


def _changed(config: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in config.items():
        default = defaults.get(key)
        if isinstance(value, dict) and isinstance(default, dict):
            kept[key] = _changed(value, default)
        elif key not in defaults or value != default:
            kept[key] = value
    return kept


def _flat(value: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        if {"name", "path", "hub"} <= set(value):  # a source: only what was set
            shown = [
                f"{key} {item}" for key, item in value.items() if key in ("limit", "weight") and item not in (0, 1.0)
            ]
            yield f"{prefix.rstrip('.')} {value['name'] or value['path'] or value['hub']}" + (
                f" ({', '.join(shown)})" if shown else ""
            )
            return
        for key, item in value.items():
            yield from _flat(item, f"{prefix}{key}.")
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        if all(isinstance(item, dict) and {"name", "path", "hub"} <= set(item) for item in value):
            for item in value:
                yield from _flat(item, prefix)
        else:
            yield f"{prefix.rstrip('.')} {len(value)} entries"
    elif value is not None:
        shown_value = ", ".join(map(str, value)) or "none" if isinstance(value, list) else value
        yield f"{prefix.rstrip('.')} {shown_value}"
