"""Tokenizers side by side: seconds to learn 8,192 tokens from 10 MB, and megabytes a second to turn text into ids.

    python benchmarks/tokenizer.py --peer-python PEER/bin/python        # PEER has rustbpe, tiktoken, sentencepiece, tokenizers
    python benchmarks/tokenizer.py                                      # ours alone

The text is that of the pre-training race, its first documents in order. Each system learns from the same texts by its own
code, and encodes the same English documents and the same Chinese ones (a document is Chinese where a third of its characters
are) with what it has learnt: as one call for each document on one thread, and by its own way for many documents on all cores.
BPE is not unigram: sentencepiece is shown in both, since unigram is what it is fast in, and a unigram vocabulary gives other
tokens. Each turn is a process of its own, the systems take turns, imports are not counted, medians over --repeats are shown;
characters for each token stand beside, because a tokenizer that finds fewer tokens has less to write.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SYSTEMS = ("duihua", "tokenizers", "rustbpe + tiktoken", "sentencepiece bpe", "sentencepiece unigram")
OURS = "duihua"
# nanochat's pattern is GPT-4's with fewer digits; every system here is given Qwen2's, which ours has, where it takes one.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

MODULES = {
    OURS: ("duihua.text.tokenizer",),
    "tokenizers": ("tokenizers",),
    "rustbpe + tiktoken": ("rustbpe", "tiktoken"),
    "sentencepiece bpe": ("sentencepiece",),
    "sentencepiece unigram": ("sentencepiece",),
}
"""What each imports."""

Texts = Sequence[str]
Learnt = tuple[Callable[[str], Sequence[int]], Callable[[Texts], Sequence[Sequence[int]]]]
"""How one text is encoded, and how many are."""


def learn_duihua(texts: Texts, size: int) -> Learnt:
    """Ours; the quick encoder is made before the clock runs, as it is made once for each process."""
    from duihua.text.tokenizer import Tokenizer

    made = Tokenizer.train(texts, size)
    return made.encode, made.encode_batch


def learn_tokenizers(texts: Texts, size: int) -> Learnt:
    """The library as its own documentation has it: byte-level BPE split by a pattern."""
    import tokenizers
    from tokenizers import Regex, models, pre_tokenizers, trainers

    made = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])  # type: ignore[list-item]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    return (lambda text: made.encode(text).ids), (lambda many: [one.ids for one in made.encode_batch_fast(list(many))])


def learn_rustbpe(texts: Texts, size: int) -> Learnt:
    """nanochat's two: rustbpe learns, tiktoken encodes."""
    import rustbpe  # type: ignore[import-not-found]
    import tiktoken

    made = rustbpe.Tokenizer()
    made.train_from_iterator(iter(texts), size, pattern=PATTERN)
    ranks = {bytes(name): id for name, id in made.get_mergeable_ranks()}
    encoding = tiktoken.Encoding("peer", pat_str=made.get_pattern(), mergeable_ranks=ranks, special_tokens={})
    cores = len(os.sched_getaffinity(0))
    return encoding.encode_ordinary, lambda many: encoding.encode_ordinary_batch(list(many), num_threads=cores)


def learn_sentencepiece(texts: Texts, size: int, kind: str) -> Learnt:
    """sentencepiece, unknown bytes as bytes. It takes lines, so the documents are cut at line ends for learning."""
    import sentencepiece  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as folder:
        prefix = str(Path(folder) / "model")
        lines = (line for text in texts for line in text.splitlines() if line.strip())
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines, model_prefix=prefix, vocab_size=size, model_type=kind, byte_fallback=True,
            character_coverage=0.9995, num_threads=len(os.sched_getaffinity(0)), minloglevel=2,
        )  # fmt: skip
        made = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    return made.encode, lambda many: made.encode(list(many), num_threads=len(os.sched_getaffinity(0)))


def learn(system: str, texts: Texts, size: int) -> Learnt:
    """What `system` learns from `texts`."""
    if system.startswith("sentencepiece"):
        return learn_sentencepiece(texts, size, system.rsplit(" ", 1)[1])
    return {OURS: learn_duihua, "tokenizers": learn_tokenizers, "rustbpe + tiktoken": learn_rustbpe}[system](
        texts, size
    )


def turn(system: str, file: Path, size: int) -> dict[str, float]:
    """One turn in this process: seconds to learn, then megabytes a second and characters a token by language."""
    parts = json.loads(file.read_text(encoding="utf-8"))
    for name in MODULES[system]:
        importlib.import_module(name)
    began = time.perf_counter()
    one, many = learn(system, parts["learn"], size)
    found = {"learn_seconds": time.perf_counter() - began}
    many(parts["en"])
    many(parts["zh"])  # warm: what is made once for a process is made here
    for language in ("en", "zh"):
        texts = parts[language]
        megabytes = sum(len(text.encode()) for text in texts) / 1e6
        began = time.perf_counter()
        ids = [one(text) for text in texts]
        found[f"{language}_one"] = megabytes / (time.perf_counter() - began)
        began = time.perf_counter()
        many(texts)
        found[f"{language}_all"] = megabytes / (time.perf_counter() - began)
        found[f"{language}_characters"] = sum(map(len, texts)) / sum(map(len, ids))
    return found


def write_texts(data: str, file: Path, megabytes: float) -> None:
    """The texts of a benchmark as one JSON file: "learn", "en", "zh"."""
    from race.corpus import first_texts

    parts: dict[str, list[str]] = {"learn": first_texts(data, megabytes), "en": [], "zh": []}
    for text in parts["learn"]:
        chinese = sum("\u4e00" <= character <= "\u9fff" for character in text)
        parts["zh" if 3 * chinese > len(text) else "en"].append(text)
    file.write_text(json.dumps(parts), encoding="utf-8")


COLUMNS = ("system", "learn, s", "en, MB/s", "zh, MB/s", "en, all cores", "zh, all cores", "en, char/token", "zh")
KEYS = ("learn_seconds", "en_one", "zh_one", "en_all", "zh_all", "en_characters", "zh_characters")


def main() -> int:
    """Take the turns and print the table."""
    given = _arguments()
    if given.turn:
        print(json.dumps(turn(given.turn, given.texts, given.size)))
        return 0
    from duihua import console

    with console.json_output(given.json), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.json"
        write_texts(given.data, file, given.megabytes)
        systems = given.systems or (SYSTEMS if given.peer_python else SYSTEMS[:2])
        found: dict[str, list[dict[str, float]]] = {system: [] for system in systems}
        for _ in range(given.repeats):
            for system in systems:
                python = sys.executable if system in SYSTEMS[:2] else str(given.peer_python)
                command = [python, __file__, "--turn", system, "--texts", str(file), "--size", str(given.size)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(f"{system}: {done.stderr[-2000:]}", file=sys.stderr)
                    return 1
                found[system].append(json.loads(done.stdout.splitlines()[-1]))
        rows = {
            system: {key: statistics.median(each[key] for each in turns) for key in KEYS}
            for system, turns in found.items()
        }
    if given.json:
        print(json.dumps({"rows": rows, "turns": found}))
    else:
        shown: list[list[Any]] = [[system, *(f"{row[key]:.2f}" for key in KEYS)] for system, row in rows.items()]
        console.table(f"{given.megabytes:g} MB, vocabulary {given.size:,}, median of {given.repeats}", COLUMNS, shown)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer-python", type=Path, default=None, help="Python of an environment with the peers")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=None, help="default: all that can run")
    parser.add_argument("--data", default="", help="data directory (default $DUIHUA_HOME or ~/.cache/duihua)")
    parser.add_argument("--megabytes", type=float, default=10.0, help="of text (default 10)")
    parser.add_argument("--size", type=int, default=8192, help="tokens to learn (default 8,192)")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each system (default 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--turn", default="", choices=("", *SYSTEMS), help=argparse.SUPPRESS)
    parser.add_argument("--texts", type=Path, default=None, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
