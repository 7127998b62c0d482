"""Which version of a model a folder stands for: said by a person, or by a gate that was stated beforehand.

Why the lower end of the interval and not the win rate: with few prompts a version that is no better wins two times in three
every so often, and whoever looks at ten versions would promote one of them. Why only against the version that is promoted: a
win over an older one says nothing about the present one.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from duihua import console
from duihua.errors import ConfigError
from duihua.models.versions import Version, Versions, read_versions
from duihua.report.lock import only_run
from duihua.report.run_log import now


def check_gate(gate: float | None) -> None:
    """ConfigError for a gate that is no share."""
    if gate is not None and not 0 <= gate < 1:
        raise ConfigError(
            f"must be a share of wins from 0 to below 1, found {gate}",
            where="--gate",
            remedy="0.5 means: better than even",
        )


def promote(directory: Path, name: str, gate: float | None = None) -> tuple[Versions, str]:
    """Let the folder mean the version `name` from now on; gate: only where the comparison holds it.

    The versions as they are then, and why it was not promoted ("" where it was). Raises BundleError for a version that is
    not there or not finished.
    """
    check_gate(gate)
    read_versions(directory)
    with only_run(directory):
        versions = read_versions(directory)
        versions.bundle(name)
        refused = "" if gate is None else why_not(versions, versions.get(name), gate)
        if not refused and name != versions.promoted:
            versions = promoted(versions, name, "user" if gate is None else "gate", gate)
    return versions, refused


def why_not(versions: Versions, version: Version, gate: float) -> str:
    """Why a gate keeps a version from being promoted; "" where it does not."""
    compared = version.facts.get("comparison")
    if version.name == versions.promoted:
        return ""
    if not isinstance(compared, dict):
        return f"{version.name} has not been compared with any other"
    if compared["against"] != versions.promoted:
        return f"{version.name} was compared with {compared['against']}, and {versions.promoted} is promoted"
    low = compared["win_rate"]["low"]
    if not low > gate:
        return f"the win rate of {version.name} may be as low as {low:.3f}, which is not above the gate of {gate:g}"
    return ""


def promoted(versions: Versions, name: str, by: str, gate: float | None) -> Versions:
    """The versions with another one promoted, written down with who said so and when. For whoever holds the folder alone."""
    entry: dict[str, Any] = {"version": name, "instead_of": versions.promoted, "by": by, "when": now()}
    if gate is not None:
        entry["gate"] = gate
    found = dataclasses.replace(versions, promoted=name, promotions=(*versions.promotions, entry))
    found.save()
    console.say(f"{name} is promoted; {versions.promoted} can still be chosen.")
    return found
