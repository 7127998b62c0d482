"""Starting one system of the race: what is prepared before the clock, the environment of its process, its row.

Before the clock, for all: the tokenizer is trained and the text is written in the form that the system's training reads
(nanochat: Parquet files, which its loader tokenises on the clock; nanoGPT: one file of ids; Duihua: a shard of ids). On the
clock: everything from the start of the process to the end of the last training step.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duihua.config.mapping import load_yaml, override
from duihua.errors import ConfigError, TrainingError
from duihua.files import sha256_json
from race.corpus import HELD_OUT_BYTES, race_files
from race.driver import read_texts

BENCHMARKS = Path(__file__).resolve().parents[1]
SETTINGS = Path(__file__).with_name("duihua.yaml")
SYSTEMS = ("duihua", "nanochat", "nanogpt")
READ = {
    "nanochat": ("nanochat/gpt.py", "nanochat/optim.py", "scripts/base_train.py"),
    "nanogpt": ("model.py", "train.py"),
}
"""Files of a snapshot that say which version it is."""
VOCABULARY = 8192


@dataclass(frozen=True)
class Setup:
    """Where things lie, and what is the same for all cells of a race."""

    data: Path
    work: Path
    threads: int = 2
    nanochat: Path | None = None
    nanogpt: Path | None = None
    peer_python: str = sys.executable
    eager: bool = False
    sets: tuple[str, ...] = ()
    clock: str = "wall"
    peer_flags: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def folder(self, system: str) -> Path:
        """The snapshot of a peer. ConfigError where it is not given or not one."""
        folder = self.nanochat if system == "nanochat" else self.nanogpt
        if folder is None or not all((folder / name).is_file() for name in READ[system]):
            raise ConfigError(
                "no snapshot of the peer there" if folder else "no snapshot of the peer given",
                where=f"--{system} {folder or ''}".strip(),
                remedy=f"Name the folder that holds {READ[system][-1]}"
                + ("" if system == "nanochat" else "; nanogpt needs --nanochat too, for the tokenizer"),
            )
        return folder.resolve()

    def decides(self, system: str) -> Any:
        """What makes a row of `system` another row, beside seconds and seed."""
        same = [self.threads, self.clock]
        if system == "duihua":
            return [same, override(load_yaml(SETTINGS), self.sets)]
        return [same, self.eager, self.peer_flags.get(system, ()), snapshot(self.folder(system), system)]


def snapshot(folder: Path, system: str) -> str:
    """A short hash of the files that a peer trains with."""
    whole = b"".join((folder / name).read_bytes() for name in READ[system])
    return hashlib.sha256(whole).hexdigest()[:12]


def run_system(system: str, seconds: float, seed: int, setup: Setup) -> dict[str, Any]:
    """One row: the system trained for `seconds` with `seed`, and scored. Raises TrainingError where its process fails."""
    train, heldout = race_files(setup.data)
    with tempfile.TemporaryDirectory(prefix="race-") as name:
        aside = Path(name)
        arguments, python, environment = _prepared(system, seed, setup, train, aside)
        result = aside / "row.json"
        command = [python, "-m", f"race.run_{system}", *_flags(seconds, seed, setup, heldout, result), *arguments]
        _call(command, environment, setup.work / f"{system}-{seconds:g}s-{seed}.log")
        row: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    if row["heldout_bytes"] != HELD_OUT_BYTES:
        raise TrainingError(
            f"{row['heldout_bytes']:,} bytes were scored, should be {HELD_OUT_BYTES:,}",
            where=system,
            remedy="Remove the race text of the data directory, so that it is built again",
        )
    return row


def _flags(seconds: float, seed: int, setup: Setup, heldout: Path, result: Path) -> list[str]:
    flags = {"seconds": seconds, "started": time.time(), "seed": seed, "threads": setup.threads}
    return [
        *(f"--{key}={value}" for key, value in flags.items()),
        f"--heldout={heldout.resolve()}",
        f"--result={result}",
    ]


def _prepared(system: str, seed: int, setup: Setup, train: Path, aside: Path) -> tuple[list[str], str, dict[str, str]]:
    """Prepare a system; its own arguments, its Python and its environment."""
    setup.work.mkdir(parents=True, exist_ok=True)
    threads = str(setup.threads)
    environment = {
        **os.environ,
        "PYTHONPATH": str(BENCHMARKS),
        "PYTHONDONTWRITEBYTECODE": "1",  # snapshots are read, never written to
        "PYTHONHASHSEED": "0",
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), threads),
        "TORCHINDUCTOR_CACHE_DIR": str(aside / "compiled"),  # so that each run compiles anew, on its clock
        "TORCHDYNAMO_DISABLE": "1" if setup.eager else "0",
    }
    if system == "duihua":
        return [*_prepared_duihua(setup, aside, environment), f"--clock={setup.clock}"], sys.executable, environment
    nanochat = setup.folder("nanochat")
    environment |= {"NANOCHAT_DTYPE": "float32", "NANOCHAT_BASE_DIR": str(aside / "nanochat")}
    _prepare_nanochat(setup, train, seed, aside / "nanochat", environment)
    more = ["--", *setup.peer_flags.get(system, ())]
    if system == "nanochat":
        return [f"--folder={nanochat}", *more], setup.peer_python, environment
    text = setup.work.resolve() / f"nanogpt-text-{snapshot(nanochat, 'nanochat')}"
    if not (text / "vocabulary.json").exists():
        places = [f"--train={train.resolve()}", f"--text={text}", f"--nanochat={nanochat}", f"--threads={threads}"]
        command = [setup.peer_python, "-m", "race.run_nanogpt", "--prepare", *places]
        _call(command, environment, setup.work / "nanogpt-prepare.log")
    places = [f"--folder={setup.folder('nanogpt')}", f"--nanochat={nanochat}", f"--text={text}"]
    return [*places, *more], setup.peer_python, environment


def _prepared_duihua(setup: Setup, aside: Path, environment: dict[str, str]) -> list[str]:
    settings = override(load_yaml(SETTINGS), setup.sets)
    file = aside / "settings.json"
    file.write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = setup.work.resolve() / f"tokenizer-{sha256_json(settings['tokenizer'])[:12]}"
    places = [f"--settings={file}", f"--tokenizer={tokenizer}", f"--data={setup.data.resolve()}"]
    command = [sys.executable, "-m", "race.run_duihua", "--prepare", f"--threads={setup.threads}", *places]
    _call(command, environment, setup.work / "duihua-prepare.log")
    return places


def _prepare_nanochat(setup: Setup, train: Path, seed: int, home: Path, environment: dict[str, str]) -> None:
    """Its base folder: documents in the seed's order (its last file is its held-out part, which is not read here), and the
    tokenizer, which its own script trains once, in the file's order."""
    folder = setup.folder("nanochat")
    kept = setup.work.resolve() / f"nanochat-tokenizer-{VOCABULARY}-{snapshot(folder, 'nanochat')}"
    documents = read_texts(train)
    if not kept.exists():
        first = home.with_name("nanochat-tokenizer")
        _write_parquet(documents, first)
        command = [setup.peer_python, "-m", "scripts.tok_train", f"--vocab-size={VOCABULARY}"]
        own = {**environment, "NANOCHAT_BASE_DIR": str(first), "PYTHONPATH": str(folder)}
        _call(command, own, setup.work / "nanochat-tokenizer.log")
        part = kept.with_suffix(".part")
        shutil.copytree(first / "tokenizer", part, dirs_exist_ok=True)
        part.rename(kept)
    random.Random(seed).shuffle(documents)
    _write_parquet(documents, home)
    shutil.copytree(kept, home / "tokenizer")


def _write_parquet(documents: list[str], home: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    folder = home / "base_data_climbmix"
    folder.mkdir(parents=True)
    for name, part in (("shard_00000.parquet", documents), ("shard_00001.parquet", documents[:1])):
        pyarrow.parquet.write_table(pyarrow.table({"text": part}), folder / name, row_group_size=1000)


def _call(command: list[str], environment: dict[str, str], log: Path) -> None:
    """Run a process to its end, what it prints going to `log`. TrainingError with its last line where it fails."""
    with open(log, "w", encoding="utf-8") as file:
        code = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        said = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        raise TrainingError(
            f"ended with {code}: {said[-1].strip() if said else 'it printed nothing'}",
            where=command[2],
            remedy=f"Read {log}",
        )
