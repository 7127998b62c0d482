"""`duihua reward score DIR FILE`: each conversation's last reply, or both replies of each pair, with their rewards.

Why nothing is passed over: whoever joins scores to rows needs one for each. A row that is neither a conversation nor a pair
is an error that names file and line.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duihua import console
from duihua.cli.arguments import Parser
from duihua.data.columns import ColumnPlan, plan_columns, to_record
from duihua.data.records import BadRecordError, Conversation, Message, Preference, Record
from duihua.data.rows import Fault, Row, read_rows
from duihua.data.source import ColumnsConfig
from duihua.errors import DataError

if TYPE_CHECKING:
    from duihua.stages.reward_model import RewardModel, Scored

CHUNK = 64
"""Rows that are read, scored and printed together."""
STANDARD_INPUT = "standard input"
HELP = """\
Score replies with a reward model: JSON lines in, the same lines with the key `reward` out.

A row of a conversation (messages, or instruction and output) gets {"score", "tokens"} of its last reply; a row of a pair
(prompt, chosen, rejected, in the usual forms) gets {"chosen", "rejected", "margin", "probability"}. Scores are normalised: 0
is the average reply of the policy that the model was normalised on, 1 is one standard deviation. probability: that the
chosen reply is the better one.

FILE: .jsonl, .json, .csv, .tsv or .parquet (the first four also packed as .gz or .zst); -: JSON lines on standard input."""


def main(argv: Sequence[str]) -> int:
    """Score a file; returns 0. Raises DuihuaError."""
    parser = Parser(
        prog="duihua reward score", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("model", metavar="DIR", help="folder of a reward model")
    parser.add_argument("file", metavar="FILE", help="conversations or pairs; - for standard input")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default cpu)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    arguments = parser.parse_args(list(argv))
    with console.json_output(arguments.json):
        from duihua.stages.reward_model import RewardModel

        rows = read_records(_standard_input() if arguments.file == "-" else read_rows(Path(arguments.file)))
        first = next(rows, None)  # a fault in the file shows before the model is loaded
        if first is None:
            raise DataError("there is nothing to score", where=arguments.file, remedy="Give a file with rows")
        model = RewardModel.load(arguments.model, arguments.device)
        found: list[dict[str, Any]] = []
        cut = 0
        waiting = iter([first])
        while chunk := [*islice(waiting, 1), *islice(rows, CHUNK)]:
            for values, scored, lost in rewards(model, chunk):
                cut += lost > 0
                if arguments.json:
                    found.append(scored)
                else:
                    print(json.dumps({**values, "reward": scored}, ensure_ascii=False), flush=False)
            sys.stdout.flush()
        if cut:
            console.warn(f"{cut:,} rows were longer than the model reads: the beginning of their prompts was cut off")
        if arguments.json:
            normalised = model.bundle.normalisation is not None
            console.emit_json({"model": arguments.model, "normalised": normalised, "rewards": found})
    return 0


def read_records(rows: Iterable[Row | Fault]) -> Iterator[tuple[Mapping[str, Any], Record, str]]:
    """(the row, its record, its place) of each row; the first decides whether they are pairs. Raises DataError."""
    plan: ColumnPlan | None = None
    for row in rows:
        if isinstance(row, Fault):
            raise DataError(row.reason, where=row.place, remedy="Mend the line")
        if plan is None:
            pairs = {"chosen", "rejected"} <= set(row.values)
            plan = plan_columns("preferences" if pairs else "conversations", ColumnsConfig(), row.values, row.place)
        try:
            yield row.values, to_record(row.values, plan, row.place), row.place
        except BadRecordError as bad:
            where = f"{row.place}: {bad.field}" if bad.field else row.place
            raise DataError(bad.reason, where=where, remedy="Mend the line") from bad


def rewards(
    model: RewardModel, chunk: Sequence[tuple[Mapping[str, Any], Record, str]]
) -> Iterator[tuple[Mapping[str, Any], dict[str, Any], int]]:
    """(row, what stands under `reward`, tokens cut off) of some rows."""
    asked: list[tuple[Sequence[Message], str]] = []
    for _, record, _ in chunk:
        if isinstance(record, Preference):
            asked += [(record.prompt, record.chosen), (record.prompt, record.rejected)]
        else:
            assert isinstance(record, Conversation)
            asked.append((record.messages[:-1], record.messages[-1]["content"]))
    try:
        answers = iter(model.score(asked))
    except DataError as error:
        raise DataError(error.problem, where=f"{chunk[0][2]} to {chunk[-1][2]}", remedy=error.remedy) from error
    for values, record, _ in chunk:
        if isinstance(record, Preference):
            chosen, rejected = next(answers), next(answers)
            yield values, pair_reward(chosen, rejected), chosen.cut_tokens + rejected.cut_tokens
        else:
            one = next(answers)
            yield values, {"score": one.score, "tokens": one.tokens}, one.cut_tokens


def pair_reward(chosen: Scored, rejected: Scored) -> dict[str, float]:
    """Both scores, their difference, and the probability that the chosen reply is the better one (Bradley and Terry 1952)."""
    return {
        "chosen": chosen.score,
        "rejected": rejected.score,
        "margin": chosen.score - rejected.score,
        "probability": 0.5 * (1 + math.tanh((chosen.raw - rejected.raw) / 2)),
    }


def _standard_input() -> Iterator[Row | Fault]:
    for number, line in enumerate(sys.stdin.buffer, start=1):
        place = f"{STANDARD_INPUT}:{number}"
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError:  # bytes that are not UTF-8 too
            yield Fault("bad JSON", place)
            continue
        yield Row(values, place) if isinstance(values, dict) else Fault("not a JSON object", place)
