"""Shards: token ids in a memory-mapped file, with the place where each document ends.

Why: tokenising costs minutes and memory, reading ids costs neither. A shard is made once for a corpus and a tokenizer
(its name is the hash of both), appended to block by block and renamed when whole; training reads from it the few bytes that a
row needs. Why read and not mapped: pages of a mapped file that were touched count as the process's own memory until
somebody else wants them, and after an epoch that is the whole corpus. Read bytes leave nothing behind.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from duihua.errors import DataError
from duihua.files import read_json, sync_directory, write_json

BLOCK_DOCUMENTS = 512
"""Documents tokenised at once."""


class Encoder(Protocol):
    """What a shard needs of a tokenizer."""

    @property
    def vocabulary_size(self) -> int: ...
    @property
    def end_of_text_id(self) -> int: ...
    def encode_flat(self, texts: list[str]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]: ...


class Shard:
    """A mapped shard. ids: all tokens, each document followed by the end-of-text token. ends: index after each document."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.about = read_json(directory / "shard.json")
        self.ids: npt.NDArray[np.unsignedinteger] = np.memmap(
            directory / "ids.bin", dtype=self.about["dtype"], mode="r"
        )
        self._file = open(directory / "ids.bin", "rb", buffering=0)  # noqa: SIM115  # closed with the shard
        self.ends: npt.NDArray[np.int64] = np.fromfile(directory / "ends.bin", dtype=np.int64)
        if len(self.ids) != self.about["tokens"] or len(self.ends) != self.about["documents"]:
            raise DataError(
                "the shard's files do not fit its description", where=str(directory), remedy="Remove the folder"
            )

    @property
    def tokens(self) -> int:
        return int(self.about["tokens"])

    @property
    def documents(self) -> int:
        return int(self.about["documents"])

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of the text, end-of-text tokens not counted."""
        return int(self.about["bytes"])

    def document(self, index: int) -> npt.NDArray[np.unsignedinteger]:
        """Ids of one document with its end-of-text token."""
        return self.part(index, 0, int(self.ends[index]))

    def part(self, index: int, offset: int, count: int) -> npt.NDArray[np.unsignedinteger]:
        """At most `count` ids of one document from place `offset` on, the end-of-text token included."""
        start = (int(self.ends[index - 1]) if index else 0) + offset
        size = self.ids.itemsize
        wanted = min(count, int(self.ends[index]) - start) * size
        data = os.pread(self._file.fileno(), wanted, start * size)
        if len(data) != wanted:
            raise DataError("the file of ids ends too early", where=str(self.directory), remedy="Remove the folder")
        return np.frombuffer(data, dtype=self.ids.dtype)


def write_shard(directory: Path, texts: Iterable[str], tokenizer: Encoder) -> Shard:
    """Tokenise `texts` into `directory`, atomically; where another process was faster, its files stay. Raises DataError when
    there is no text."""
    aside = directory.with_name(f".{directory.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        _write(aside, texts, tokenizer, directory.name)
        if not (directory / "shard.json").is_file():
            os.rename(aside, directory)
            sync_directory(directory.parent)
    except OSError:
        if not (directory / "shard.json").is_file():  # else the other came in between
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Shard(directory)


def _write(aside: Path, texts: Iterable[str], tokenizer: Encoder, name: str) -> None:
    """The files of a shard."""
    dtype = np.dtype(np.uint16 if tokenizer.vocabulary_size <= 1 << 16 else np.uint32)
    end = tokenizer.end_of_text_id
    tokens = text_bytes = 0
    ends: list[npt.NDArray[np.int64]] = []
    with open(aside / "ids.bin", "wb") as file:
        for block in _blocks(texts, BLOCK_DOCUMENTS):
            text_bytes += sum(len(text.encode("utf-8")) for text in block)
            ids, behind = tokenizer.encode_flat(block)
            np.insert(ids.astype(dtype), behind, end).tofile(file)
            ends.append(tokens + behind + np.arange(1, len(block) + 1))
            tokens = int(ends[-1][-1])
        file.flush()
        os.fsync(file.fileno())
    if not ends:
        raise DataError("there is no text in it", where=name, remedy="Check the sources of the corpus")
    every = np.concatenate(ends)
    every.tofile(aside / "ends.bin")
    write_json(
        aside / "shard.json", {"dtype": dtype.name, "tokens": tokens, "documents": len(every), "bytes": text_bytes}
    )


def cached_shard(cache: Path, key: str, texts: Iterable[str], tokenizer: Encoder) -> Shard:
    """The shard of `key` below `cache`, written first if it is not there. The key must name text and tokenizer both."""
    directory = cache / key
    return Shard(directory) if (directory / "shard.json").exists() else write_shard(directory, texts, tokenizer)


def _blocks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    block: list[str] = []
    for text in texts:
        block.append(text)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block
