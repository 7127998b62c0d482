"""`duihua best-of-n POLICY REWARD`: several replies to each prompt, and the one that the reward model likes best.

    duihua best-of-n runs/quickstart/sft runs/quickstart/reward --source chitchat --count 64 --n 16
    duihua best-of-n runs/quickstart/sft runs/quickstart/reward --prompt "Hello!" --n 4

It prints what the best of 1, 2, 4, ... n earns, beside the farthest that it can be from the policy, in nats: the yardstick
for PPO, DPO and GRPO, which reach a reward at a price in the same nats.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duihua import console
from duihua.cli.arguments import Parser
from duihua.errors import ConfigError

if TYPE_CHECKING:
    from duihua.models.bundle import Bundle
    from duihua.stages.best_of_n import Candidates
    from duihua.stages.replies import Prompt

MOST_PROMPT_TOKENS = 96
COLUMNS = {
    "n": "n", "reward": "reward", "standard_error": "standard error", "kl_bound": "KL at most (nats) = log n - (n - 1)/n",
}  # fmt: skip
"""Of the curve; one prompt alone has no standard error."""


def main(argv: Sequence[str]) -> int:
    """Sample, judge, print. Returns 0. Raises DuihuaError."""
    arguments = _parser().parse_args(list(argv))
    with console.json_output(arguments.json):
        outcome = best_of_n(arguments)
        if arguments.output:
            _write(Path(arguments.output), outcome["replies"])
        if arguments.json:
            console.emit_json(outcome)
        else:
            _show(outcome, arguments.samples)
    return 0


def best_of_n(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed: the curve over m = 1..n and, for each prompt, the best reply beside the first."""
    _check(arguments)
    from duihua.models.bundle import load_bundle
    from duihua.stages.best_of_n import sample_candidates
    from duihua.stages.execution import settled
    from duihua.stages.judging import check_context, check_tokenizers
    from duihua.stages.prompts import require_stop_token
    from duihua.stages.replies import engine_sampler
    from duihua.stages.scoring import reward_scorer
    from duihua.text.chat_template import ChatTemplate

    with settled(arguments.device, arguments.threads, arguments.seed):
        policy = load_bundle(arguments.policy, arguments.device)
        judge = load_bundle(arguments.reward, arguments.device)
        sampler_of = policy.policy, policy.tokenizer
        score = reward_scorer(judge)
        check_tokenizers(policy.tokenizer, judge)
        room = min(policy.config.context, judge.config.context) - arguments.reply_tokens - 1
        longest = arguments.prompt_tokens or max(1, min(MOST_PROMPT_TOKENS, room))
        check_context("best-of-n", longest, arguments.reply_tokens, [policy, judge])
        require_stop_token(ChatTemplate(policy.tokenizer), str(policy.directory))
        prompts = _prompts(arguments, policy, longest)
        sample = engine_sampler(
            *sampler_of, reply_tokens=arguments.reply_tokens, temperature=arguments.temperature, slots=arguments.slots
        )
        found = sample_candidates(sample, score, prompts, arguments.n, arguments.seed)
    return {
        "policy": arguments.policy,
        "reward": arguments.reward,
        "n": arguments.n,
        "temperature": arguments.temperature,
        "prompts": len(prompts),
        "curve": [{name: value for name, value in row.items() if not math.isnan(value)} for row in found.curve()],
        "replies": _rows(found, policy),
    }


def _check(arguments: argparse.Namespace) -> None:
    for name, least in (("n", 1), ("count", 1), ("reply_tokens", 1), ("prompt_tokens", 0), ("slots", 1)):
        if getattr(arguments, name) < least:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"must be at least {least}, found {getattr(arguments, name)}",
                where=flag,
                remedy=f"Set it to {least} or more, or leave it out",
            )
    if arguments.temperature <= 0:
        raise ConfigError(
            f"must be above 0, found {arguments.temperature}",
            where="--temperature",
            remedy="The likeliest reply is the same every time, so there would be nothing to choose from",
        )
    if bool(arguments.source) == bool(arguments.prompt):
        raise ConfigError(
            "needs prompts, from one place",
            where="duihua best-of-n",
            remedy='Give --source NAME (held-out prompts of a source) or --prompt "..."',
        )


def _prompts(arguments: argparse.Namespace, policy: Bundle, longest: int) -> list[Prompt]:
    """The prompts of --prompt, or the held-out ones of the sources; of at most `longest` tokens."""
    from duihua.data.home import data_directory
    from duihua.data.records import USER, LeftOut, Message
    from duihua.data.source import KNOWN_SOURCES, SourceConfig
    from duihua.stages.judging import choose_prompts
    from duihua.stages.prompts import open_sources
    from duihua.stages.replies import Prompt
    from duihua.text.chat_template import ChatTemplate

    template = ChatTemplate(policy.tokenizer)
    if arguments.source:
        configs = [
            SourceConfig(name=name)
            if name in KNOWN_SOURCES or not Path(name).exists()
            else SourceConfig(path=name, kind="conversations")
            for name in arguments.source
        ]
        sources = open_sources(configs, data_directory(arguments.data), "conversations", "--source")
        return choose_prompts(
            "best-of-n", sources, configs, "heldout", arguments.count, longest, template, arguments.seed,
            LeftOut(),
        )  # fmt: skip
    prompts = []
    for index, text in enumerate(arguments.prompt):
        messages: list[Message] = [{"role": USER, "content": text}]
        ids = template.encode(messages, add_generation_prompt=True).ids
        if len(ids) > longest:
            raise ConfigError(
                f"{len(ids)} tokens, at most {longest} are read",
                where=f"--prompt {text[:20]!r}",
                remedy="Shorten it or raise --prompt-tokens",
            )
        prompts.append(Prompt(index, messages, ids))
    return prompts


def _rows(found: Candidates, policy: Bundle) -> list[dict[str, Any]]:
    rows = found.to_rows()
    for row, replies, place in zip(rows, found.replies, found.best(), strict=True):
        assert place is not None
        texts = [policy.tokenizer.decode(reply.ids).strip() for reply in replies]
        row |= {"best": texts[place], "best_score": row["scores"][place], "first": texts[0], "texts": texts}
    return rows


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    from duihua.files import write_atomic

    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    console.say(f"{console.counted(len(rows), 'prompt')} with all replies: {path}")


def _show(outcome: dict[str, Any], samples: int) -> None:
    shown = [row for row in outcome["curve"] if row["n"] & (row["n"] - 1) == 0 or row["n"] == outcome["n"]]
    console.table(
        f"best of n by {outcome['reward']}, {console.counted(outcome['prompts'], 'prompt')}",
        [title for name, title in COLUMNS.items() if name in shown[0]],
        [[row[name] for name in COLUMNS if name in row] for row in shown],
    )
    for row in outcome["replies"][:samples]:
        console.say(f"\n{row['prompt']}")
        console.say(f"  first ({row['scores'][0]:+.2f}): {row['first']}")
        console.say(f"  best  ({row['best_score']:+.2f}): {row['best']}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="duihua best-of-n",
        description="Sample several replies to each prompt and keep the one that the reward model scores highest; print "
        "what the best of 1, 2, 4, ... earns and how far it can be from the policy.",
        allow_abbrev=False,
    )
    parser.add_argument("policy", metavar="POLICY", help="folder of a chat model")
    parser.add_argument("reward", metavar="REWARD", help="folder of a reward model with the same tokenizer")
    parser.add_argument("--n", metavar="N", type=int, default=16, help="replies to each prompt (default 16)")
    parser.add_argument(
        "--source",
        metavar="NAME",
        action="append",
        default=[],
        help="a known source or a file of conversations, whose held-out prompts are answered; may be repeated",
    )
    parser.add_argument("--count", metavar="N", type=int, default=32, help="prompts out of the sources (default 32)")
    parser.add_argument("--prompt", metavar="TEXT", action="append", default=[], help="a prompt; may be repeated")
    parser.add_argument(
        "--prompt-tokens",
        metavar="N",
        type=int,
        default=0,
        help=f"longest prompt (default: what the models have room for, at most {MOST_PROMPT_TOKENS})",
    )
    parser.add_argument("--reply-tokens", metavar="N", type=int, default=32, help="most tokens of a reply (default 32)")
    parser.add_argument("--temperature", metavar="T", type=float, default=1.0, help="of the sampling (default 1)")
    parser.add_argument("--slots", metavar="N", type=int, default=64, help="replies sampled at a time (default 64)")
    parser.add_argument("--samples", metavar="N", type=int, default=3, help="prompts that are shown (default 3)")
    parser.add_argument("--output", metavar="FILE", default="", help="write every prompt with all replies as .jsonl")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default cpu)")
    parser.add_argument("--threads", metavar="N", type=int, default=None, help="CPU threads (default: torch's choice)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of every random choice (default 0)")
    parser.add_argument(
        "--data", metavar="DIR", default="", help="data directory (default $DUIHUA_HOME or ~/.cache/duihua)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser
