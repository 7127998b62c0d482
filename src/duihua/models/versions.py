"""Versions of one chat model: which there are, where they lie, and which of them is the promoted one.

    DIR/versions.json    {"format": 1, "promoted": "v0", "versions": [{"name": "v0", "bundle": ...}, ...], "promotions": [...]}

Why a list of places and no copies: a version is never written again, so that the old one stays what it was and can be chosen
at any time; to promote one is to change one word in one file. Wherever a bundle is asked for, DIR stands for the promoted
version and DIR/v1 for the one of that name. A bundle inside DIR is named relative to it, so that the folder can be moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from duihua.config.mapping import suggestion
from duihua.errors import BundleError, DuihuaError
from duihua.files import read_json, write_json

VERSIONS_FILE = "versions.json"
FORMAT = 1


@dataclass(frozen=True)
class Version:
    """One version. bundle: None while it is being made. facts: how it was made and how it compares, plain JSON."""

    name: str
    bundle: Path | None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Versions:
    """All versions of a folder, in the order in which they were made. promotions: what was promoted when, and by whom."""

    directory: Path
    promoted: str
    versions: tuple[Version, ...]
    promotions: tuple[Mapping[str, Any], ...] = ()

    def get(self, name: str) -> Version:
        """The version of that name. BundleError naming the others."""
        for version in self.versions:
            if version.name == name:
                return version
        raise BundleError(
            f"there is no version {name!r}",
            where=str(self.directory),
            remedy=suggestion(name, [version.name for version in self.versions]),
        )

    def bundle(self, name: str) -> Path:
        """The bundle of the version of that name. BundleError where it is not made yet, or gone."""
        found = self.get(name).bundle
        if found is None:
            raise BundleError(
                f"version {name} is not finished",
                where=str(self.directory),
                remedy="Go on with `duihua feedback train`",
            )
        if not (found / "config.json").is_file():
            raise BundleError(
                f"the model of version {name} is gone",
                where=str(found),
                remedy=f"Put it back, or write its new place into {self.directory / VERSIONS_FILE}",
            )
        return found

    def made(self) -> list[Version]:
        """Those that can be used, the promoted one last."""
        found = [version for version in self.versions if version.bundle is not None]
        return sorted(found, key=lambda version: version.name == self.promoted)

    def with_version(self, version: Version) -> Versions:
        """The same with `version` added, or put in the place of the one of its name."""
        known = [one.name for one in self.versions]
        if version.name not in known:
            return replace(self, versions=(*self.versions, version))
        return replace(self, versions=tuple(version if one.name == version.name else one for one in self.versions))

    def save(self) -> None:
        """Write versions.json."""
        rows = [{"name": one.name, "bundle": self._place(one.bundle), **one.facts} for one in self.versions]
        write_json(
            self.directory / VERSIONS_FILE,
            {"format": FORMAT, "promoted": self.promoted, "versions": rows, "promotions": list(self.promotions)},
        )

    def _place(self, bundle: Path | None) -> str | None:
        if bundle is None:
            return None
        inside = bundle.resolve().is_relative_to(self.directory.resolve())
        return str(bundle.resolve().relative_to(self.directory.resolve()) if inside else bundle.resolve())


def has_versions(directory: Path) -> bool:
    """Whether a folder holds versions."""
    return (directory / VERSIONS_FILE).is_file()


def read_versions(directory: Path) -> Versions:
    """Read versions.json. BundleError where the folder has none, or it is broken or of another format."""
    path = directory / VERSIONS_FILE
    if not path.is_file():
        raise BundleError(
            "holds no versions", where=str(directory), remedy="Name the folder that `duihua feedback train` has written"
        )
    try:
        stored = read_json(path)
        if stored["format"] != FORMAT:
            raise BundleError(
                f"versions of format {stored['format']!r}; this duihua reads {FORMAT}",
                where=str(path),
                remedy="Use the duihua that wrote it",
            )
        versions = tuple(
            Version(
                row["name"],
                None if row["bundle"] is None else directory / row["bundle"],
                {key: value for key, value in row.items() if key not in ("name", "bundle")},
            )
            for row in stored["versions"]
        )
        found = Versions(directory, stored["promoted"], versions, tuple(stored["promotions"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError("is not a list of versions", where=str(path), remedy="Put the file back") from error
    except BundleError:
        raise
    except DuihuaError as error:
        raise BundleError(error.problem, where=error.where, remedy="Put the file back") from error
    found.get(found.promoted)
    return found


def bundle_of(path: str | Path) -> Path:
    """The bundle that a path means: DIR the promoted version of DIR, DIR/v1 that version; any other path is itself."""
    path = Path(path)
    if has_versions(path):
        versions = read_versions(path)
        return versions.bundle(versions.promoted)
    if (path / "config.json").exists() or not has_versions(path.parent):
        return path
    versions = read_versions(path.parent)
    known = any(version.name == path.name for version in versions.versions)
    return versions.bundle(path.name) if known or not path.exists() else path
