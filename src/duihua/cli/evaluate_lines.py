"""`duihua evaluate bleu`: lines against references, with the signatures that say how the scores were computed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from duihua import console
from duihua.cli.arguments import Parser
from duihua.cli.evaluate_common import check, finish, read_pairs, result_flags, shown

if TYPE_CHECKING:
    from duihua.evaluation.word_error_rate import ErrorRate

ABOUT = """\
Corpus BLEU and chrF as sacrebleu computes them, each with its signature, and 95 % bootstrap intervals over lines. With one
reference file also the word error rate, of Chinese the character error rate. Files have one text a line (.gz too, - for
standard input); line i of every file belongs together."""


def main(argv: Sequence[str]) -> int:
    """Run the command; returns 0. Raises DuihuaError."""
    parser = Parser(
        prog="duihua evaluate bleu",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[line_flags(), result_flags()],
        allow_abbrev=False,
    )
    parser.add_argument(
        "--language",
        metavar="CODE",
        required=True,
        help="of the lines: zh is cut into characters, en, fr and all others as sacrebleu's 13a does",
    )
    arguments = parser.parse_args(list(argv))
    with console.json_output(arguments.json):
        check(arguments)
        said, references = read_pairs(arguments.hypotheses, arguments.references)

        from duihua.evaluation.bleu import bleu_metric, chrf_metric
        from duihua.evaluation.significance import bootstrap_interval

        outcome: dict[str, Any] = {}
        rows = []
        for name, metric in (("bleu", bleu_metric(arguments.language)), ("chrf", chrf_metric())):
            found = bootstrap_interval(
                metric.rows(said, references), metric.score, rounds=arguments.rounds, seed=arguments.seed
            )
            outcome |= {name: found.value, f"{name}_signature": metric.signature, f"{name}_interval": found.to_dict()}
            rows.append([{"bleu": "BLEU", "chrf": "chrF"}[name], shown(found), metric.signature])
        outcome |= {"lines": len(said), "references": len(arguments.references), "language": arguments.language}
        if len(arguments.references) == 1:
            rates = error_rates(said, [known for (known,) in references], arguments.language == "zh", arguments)
            outcome |= {name: rate.to_dict() for name, rate in rates.items()}
            rows += [rate_row(rate) for rate in rates.values()]
        title = f"{arguments.hypotheses}, {len(said):,} lines"
        return finish(arguments, outcome, lambda: console.table(title, ["score", "value [95 %]", "how"], rows))


def line_flags() -> argparse.ArgumentParser:
    """Hypotheses and references."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--hypotheses", metavar="FILE", required=True, help="what a system wrote, one text a line")
    parser.add_argument(
        "--references",
        metavar="FILE",
        nargs="+",
        required=True,
        help="what it should have written; several files: any of them",
    )
    parser.add_argument(
        "--normalise",
        action="store_true",
        help="error rates without case, width and punctuation, as in speech recognition",
    )
    return parser


def error_rates(
    said: Sequence[str], known: Sequence[str], chinese: bool, arguments: argparse.Namespace
) -> dict[str, ErrorRate]:
    """Word error rate, of Chinese the character error rate; nothing where the references hold no words."""
    from duihua.evaluation.word_error_rate import Unit, error_rate

    unit: Unit = "character" if chinese else "word"
    if not any(line.strip() for line in known):
        return {}
    rate = error_rate(said, known, unit, normalise=arguments.normalise, rounds=arguments.rounds, seed=arguments.seed)
    return {f"{unit}_error_rate": rate}


def rate_row(rate: ErrorRate) -> list[str]:
    """A row of the table for people, in percent."""
    how = f"{rate.edits:,} edits of {rate.units:,} {rate.unit}s" + (", normalised" if rate.normalised else "")
    return [f"{rate.unit} error rate, %", shown(rate.rate, 100), how]
