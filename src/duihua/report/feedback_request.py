"""What `duihua feedback train` was asked for, and the folder of versions that it is asked of.

Kept apart from the making of a version because all of it is decided before anything is made: which model the votes are
about, whether the folder is one of versions, and the hash by which a second call knows that it has nothing to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from duihua.errors import ConfigError
from duihua.files import sha256_json
from duihua.models.versions import Version, Versions, bundle_of, has_versions, read_versions
from duihua.report.fingerprint import bundle_fingerprint
from duihua.report.lock import LOCK_FILE
from duihua.report.run_log import now

FIRST = "v0"


@dataclass(frozen=True)
class Request:
    """What `duihua feedback train` was asked for.

    bundle: the model to start from, None for that of the folder. run: a run whose settings and data the reward models and PPO
    take. judge: a reward model to judge by; None trains one. prompts, replies: of the comparison, at most so many prompts and
    so many replies to each. gate: promote where the win rate's lower end is above it. threads 0: one for each core.
    """

    store: Path
    output: Path
    data_directory: Path
    bundle: Path | None = None
    run: Path | None = None
    judge: Path | None = None
    method: str = "dpo"
    prompts: int = 96
    replies: int = 2
    gate: float | None = None
    settings: tuple[str, ...] = ()
    seed: int = 0
    threads: int = 0
    device: str = "cpu"
    command: tuple[str, ...] = ()


def opened(request: Request) -> Versions:
    """The versions of the folder, or a list with the model to start from as v0. BundleError, ConfigError."""
    if has_versions(request.output):
        versions = read_versions(request.output)
        first = versions.bundle(FIRST)
        if request.bundle is not None and bundle_of(request.bundle).resolve() != first.resolve():
            raise ConfigError(
                f"the versions in {request.output} begin with {first}",
                where=f"--bundle {request.bundle}",
                remedy="Leave --bundle out, or choose another folder with --output",
            )
        return versions
    if request.bundle is None:
        raise ConfigError(
            "which model the votes are about", where="--bundle", remedy="Name it, such as --bundle runs/quickstart/ppo"
        )
    facts = {"begun": now(), **({"run": str(request.run.resolve())} if request.run else {})}
    return Versions(request.output, FIRST, (Version(FIRST, bundle_of(request.bundle), facts),))


def check_folder(directory: Path) -> None:
    """ConfigError unless the folder is new, empty, or holds versions."""
    if directory.exists() and not directory.is_dir():
        raise ConfigError("is a file", where=str(directory), remedy="Choose a folder with --output")
    if directory.is_dir() and not has_versions(directory):
        other = next((one.name for one in sorted(directory.iterdir()) if not _ours(one.name)), None)
        if other is not None:
            raise ConfigError(
                f"holds other things than versions, such as {other!r}",
                where=str(directory),
                remedy="Choose a new folder with --output",
            )


def _ours(name: str) -> bool:
    """What a first call that was killed before it had written versions.json may have left."""
    return name in (LOCK_FILE, "v1-data") or (name.startswith(".") and name.endswith(".part"))


def beside(output: Path, name: str, what: str) -> Path:
    """The folder beside that of a version: "data", "judge" or "comparison"."""
    return output / f"{name}-{what}"


def run_of(request: Request, versions: Versions) -> Path | None:
    """The run whose settings are taken: the one that was named, else that of the first version, where it is still there."""
    named = request.run or versions.get(FIRST).facts.get("run")
    run = Path(named).resolve() if named else None
    return run if run is not None and run.is_dir() else None


def fingerprint_of(request: Request, versions: Versions, data: str) -> str:
    """Hash of all that decides what a version is and how it compares."""
    run = run_of(request, versions)
    judge = bundle_fingerprint(request.judge) if request.judge else ""
    settings = [request.method, list(request.settings), request.seed, request.prompts, request.replies]
    return sha256_json([data, bundle_fingerprint(versions.bundle(FIRST)), str(run or ""), judge, *settings])
