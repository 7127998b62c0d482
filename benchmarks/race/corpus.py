"""The race's text, byte for byte, or an error.

Why both hashes are checked here although the data source checks them when it builds: the peers read the files, not the
source, and a race on other bytes is no race.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

from duihua.data.home import data_directory
from duihua.data.records import Document
from duihua.data.source import SourceConfig, open_source
from duihua.data.starter.race import RaceText
from duihua.errors import DataError

SHA256 = {
    "train": "bb5051546122e23f8b9b7474c9094cddc0c64fe27d3430a6f9e87093765477f7",
    "heldout": "9bb5f8e1478d57a0bc9b409c60d01ca0d379b7641046cca3fecb7ac592bc3d12",
}
HELD_OUT_BYTES = 740_351


def first_texts(data: str, megabytes: float = math.inf) -> list[str]:
    """The first training documents in order, up to so many megabytes of UTF-8. data: "" for duihua's own directory."""
    texts: list[str] = []
    left = megabytes * 1e6
    for record in open_source(SourceConfig(name="race-text"), data_directory(data)).records("train"):
        if left <= 0:
            break
        assert isinstance(record, Document)
        texts.append(record.text)
        left -= len(record.text.encode())
    return texts


def race_files(directory: Path) -> tuple[Path, Path]:
    """train.jsonl and val.jsonl, built from the archives where they are missing. DataError where they are not the race's."""
    source = open_source(SourceConfig(name="race-text"), directory)
    assert isinstance(source, RaceText)
    next(iter(source.records("train")))  # builds what is missing or broken
    train, heldout = source.built_file("train"), source.built_file("heldout")
    for path, expected in ((train, SHA256["train"]), (heldout, SHA256["heldout"])):
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise DataError(f"SHA-256 is {found}, should be {expected}", where=str(path), remedy="Remove the file")
    return train, heldout
