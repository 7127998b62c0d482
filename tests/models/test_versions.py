"""A folder of versions stands for the promoted one, and any other can be named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from duihua.errors import BundleError
from duihua.models.versions import Version, Versions, bundle_of, read_versions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """v0 elsewhere, v1 inside, v2 unfinished; v1 is promoted."""
    for place in (tmp_path / "old", tmp_path / "feedback" / "v1" / "dpo"):
        place.mkdir(parents=True)
        (place / "config.json").write_text("{}")
    directory = tmp_path / "feedback"
    known = (
        Version("v0", tmp_path / "old"),
        Version("v1", directory / "v1" / "dpo", {"method": "dpo"}),
        Version("v2", None),
    )
    Versions(directory, "v1", known).save()
    return directory


def test_the_folder_means_the_promoted_version_and_each_has_a_name(folder: Path) -> None:
    assert bundle_of(folder) == folder / "v1" / "dpo"
    assert bundle_of(folder / "v0").resolve() == (folder.parent / "old").resolve()
    assert bundle_of(folder / "v1") == folder / "v1" / "dpo", "though there is a folder of that name"
    assert bundle_of(folder.parent / "old") == folder.parent / "old"
    assert bundle_of(folder / "v1" / "dpo") == folder / "v1" / "dpo"
    assert [version.name for version in read_versions(folder).made()] == ["v0", "v1"], "the promoted one is the last"


def test_a_moved_folder_finds_its_own_versions(folder: Path) -> None:
    moved = folder.parent / "moved"
    shutil.move(folder, moved)
    assert bundle_of(moved) == moved / "v1" / "dpo"
    assert read_versions(moved).get("v1").facts == {"method": "dpo"}


@pytest.mark.parametrize(
    ("path", "said"), [("v2", "version v2 is not finished"), ("v7", "there is no version 'v7'"), ("v0", "is gone")]
)
def test_what_cannot_be_used_is_said(folder: Path, path: str, said: str) -> None:
    if path == "v0":
        shutil.rmtree(folder.parent / "old")
    with pytest.raises(BundleError, match=said):
        bundle_of(folder / path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found | {"format": 2}, "versions of format 2"),
        (lambda found: found | {"promoted": "v9"}, "no version 'v9'"),
        (lambda found: {"format": 1}, "is not a list of versions"),
        (lambda found: [], "is not a list of versions"),
    ],
)
def test_a_broken_file_is_one_line(folder: Path, change: object, said: str) -> None:
    path = folder / "versions.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))  # type: ignore[operator]
    with pytest.raises(BundleError, match=said):
        bundle_of(folder)
    path.write_text("{")
    with pytest.raises(BundleError, match="broken JSON"):
        bundle_of(folder)
