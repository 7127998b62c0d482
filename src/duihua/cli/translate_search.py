"""The flags of beam search, the same for every command that translates."""

from __future__ import annotations

import argparse
from typing import get_args

from duihua.engine.beam_settings import USUAL_ALPHA, BeamSettings, Stopping

DEFAULT = BeamSettings()


def add_search_flags(parser: argparse.ArgumentParser, n_best: bool = True) -> None:
    """`--beam`, `--length-penalty` and their like."""
    parser.add_argument(
        "--beam", type=int, default=DEFAULT.beam, metavar="N", help="hypotheses kept (default 5; 1: greedy)"
    )
    if n_best:
        parser.add_argument(
            "--n-best", type=int, default=1, metavar="N", help="translations of each sentence (default 1)"
        )
    parser.add_argument(
        "--length-penalty",
        choices=tuple(USUAL_ALPHA),
        default=DEFAULT.length_penalty,
        help="what a log-probability is divided by: the name of a toolkit's rule (default gnmt)",
    )
    parser.add_argument("--alpha", type=float, default=None, metavar="A", help="strength of the length penalty")
    parser.add_argument("--coverage", type=float, default=0.0, metavar="B", help="Wu et al.'s beta (default 0: none)")
    parser.add_argument(
        "--stopping",
        choices=get_args(Stopping),
        default="estimate",
        help="when a sentence is done: full: as many hypotheses as the beam have ended; estimate: and no running one is better "
        "at its present length; exact: and none can become better (default estimate)",
    )
    parser.add_argument(
        "--no-repeat-ngram", type=int, default=0, metavar="N", help="no N tokens twice (default 0: may)"
    )


def search_settings(arguments: argparse.Namespace) -> BeamSettings:
    """The settings that the flags ask for. Raises GenerationError for impossible ones."""
    return BeamSettings(
        beam=arguments.beam,
        n_best=getattr(arguments, "n_best", 1),
        length_penalty=arguments.length_penalty,
        alpha=arguments.alpha,
        coverage=arguments.coverage,
        no_repeat_ngram=arguments.no_repeat_ngram,
        stopping=arguments.stopping,
    )
