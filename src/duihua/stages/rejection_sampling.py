"""Rejection sampling: the policy is fine-tuned on the best of its own replies (Touvron et al. 2023, Llama 2, section 3.2.3;
with rules that are worked out it is the idea of Zelikman et al. 2022, STaR).

What best-of-n chooses at the price of n replies is taught to the policy, which then writes it in one. The teaching is
supervised fine-tuning as everywhere else: `sft_loss` on packed rows, the reply and its stop token learnt. The ids are those
that were sampled, not those that the text would be encoded to.
"""

from __future__ import annotations

import math

import numpy as np

from duihua import console
from duihua.data.packing import Example, PackedBatches
from duihua.data.records import LeftOut
from duihua.errors import ConfigError, DataError
from duihua.models.bundle import Bundle
from duihua.nn.lora import add_lora
from duihua.stages.best_of_n import Candidates, sample_candidates
from duihua.stages.configs.rejection_sampling import RejectionSamplingConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.left_out import say_left_out
from duihua.stages.policy_training import begin, finish
from duihua.stages.replies import Prompt, Reply, replies_key, sampler_of, scored_in_parts
from duihua.stages.scoring import Rule
from duihua.stages.sft import sft_loss
from duihua.stages.stage_trainer import stage_trainer
from duihua.training.ranks import only_first_goes_on


def run(config: RejectionSamplingConfig, context: StageContext, reward: Rule | None = None) -> StageResult:
    """Fine-tune the input "policy" on its best replies by the input "reward" or the config's rules; give a policy bundle.

    reward: a Python rule (messages of the prompt, reply text) -> number, in place of both. Raises ConfigError, DataError,
    BundleError, TrainingError.
    """
    start = begin(
        "rejection_sampling",
        config,
        context,
        rules=config.rules,
        reward=reward,
        check=lambda policy, _: check_length(config, policy),
    )
    policy = start.policy
    length = config.length or policy.config.context
    found = sample_candidates(
        sampler_of(policy, config, start.dtype),
        scored_in_parts(start.judge.scorer),
        start.train,
        config.candidates,
        context.seed,
        context.directory / "replies",
        replies_key(policy, config, start.dtype),
    )
    examples = best_examples(found, config.least_score, start.left_out)
    curve = found.curve()
    console.say(
        f"rejection_sampling: {len(examples)} best replies of {len(start.train)} prompts x {config.candidates}; mean reward "
        f"{curve[0]['reward']:+.3f}, of the best {curve[-1]['reward']:+.3f}"
    )
    say_left_out("rejection_sampling", "prompts and replies", start.left_out.counts)
    if not examples:
        raise DataError(
            "no reply is good enough to learn from",
            where="rejection_sampling",
            remedy="Lower least_score, raise candidates or reply_tokens, or fine-tune the policy first",
        )
    if config.lora:
        add_lora(policy.policy, config.lora, context.seed)
    batches = PackedBatches(
        [(examples, 1.0)],
        row_length=length,
        rows=max(1, config.batch_tokens // length),
        micro_rows=max(1, config.micro_batch_tokens // length),
        pad_id=policy.tokenizer.pad_id,
        seed=context.seed,
    )
    trained = stage_trainer(
        "rejection_sampling",
        config,
        context,
        policy.policy,
        sft_loss,
        batches,
        steps=max(1, math.ceil(config.epochs * batches.rows_an_epoch / batches.rows)),
    ).run()
    only_first_goes_on()
    return finish(
        start,
        trained,
        {"loss": trained.loss, "kept": len(examples), "curve": curve},
        title="Duihua chat model, fine-tuned on its best replies",
        description=f"Fine-tuned on the best of {config.candidates} replies of its own to each prompt.",
    )


def check_length(config: RejectionSamplingConfig, policy: Bundle) -> None:
    """ConfigError where a row does not hold a prompt with its reply, or the policy does not read so long a row."""
    needed, most = config.prompt_tokens + config.reply_tokens, policy.config.context
    if not needed <= (config.length or most) <= most:
        raise ConfigError(
            f"rows of {config.length} tokens, for prompts and replies of up to {needed} and a context of {most}",
            where="rejection_sampling.length",
            remedy="Choose a length between the two, or 0 for the context",
        )


def best_examples(found: Candidates, least_score: float | None, left_out: LeftOut) -> list[Example]:
    """The best reply of each prompt that ended, as a row to learn from; what is not learnt from is counted."""
    examples = []
    for prompt, row, scores, place in zip(
        found.prompts, found.replies, found.scores_pn.tolist(), found.best(ended_only=True), strict=True
    ):
        if place is None:
            left_out.add("no sampled reply ended", prompt.source)
        elif least_score is not None and scores[place] < least_score:
            left_out.add("best reply below the least score", prompt.source)
        else:
            examples.append(example_of(prompt, row[place]))
    return examples


def example_of(prompt: Prompt, reply: Reply) -> Example:
    """Prompt and reply as they were sampled, with loss on the reply and its stop token."""
    mask = [False] * len(prompt.ids) + [True] * len(reply.ids)
    return Example(np.asarray([*prompt.ids, *reply.ids], dtype=np.int32), np.asarray(mask))
