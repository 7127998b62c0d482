"""Rejection sampling: the policy is fine-tuned on the best of its own replies (Touvron et al. 2023, Llama 2, section 3.2.3;
with rules that are worked out it is the idea of Zelikman et al. 2022, STaR).

What best-of-n chooses at the price of n replies is taught to the policy, which then writes it in one. The teaching is
supervised fine-tuning as everywhere else: `sft_loss` on packed rows, the reply and its stop token learnt. The ids are those
that were sampled, not those that the text would be encoded to.
"""

from __future__ import annotations

import json
import math
import time
from functools import partial
from typing import Any

import numpy as np
import torch

from duihua import console
from duihua.data.packing import Example, PackedBatches
from duihua.data.records import LeftOut
from duihua.errors import ConfigError, DataError
from duihua.files import sha256_file, sha256_json
from duihua.models.bundle import ModelCard, load_bundle, merge_terms, save_bundle
from duihua.nn.lora import add_lora, twin
from duihua.stages.actor_critic import freeze
from duihua.stages.best_of_n import Candidates, sample_candidates
from duihua.stages.comparison import compare
from duihua.stages.configs.rejection_sampling import RejectionSamplingConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.grpo import say_rule, show_comparison
from duihua.stages.judging import check_context, choose_prompts, make_judge, rules_table
from duihua.stages.low_rank import finish_lora
from duihua.stages.pretrain import source_terms
from duihua.stages.prompts import open_sources
from duihua.stages.replies import Prompt, Reply, engine_sampler, sampled_in_parts, scored_in_parts
from duihua.stages.scoring import Rule
from duihua.stages.sft import sft_loss
from duihua.text.chat_template import ChatTemplate
from duihua.training.precision import compute_dtype
from duihua.training.ranks import only_first_goes_on
from duihua.training.trainer import Trainer


def run(config: RejectionSamplingConfig, context: StageContext, reward: Rule | None = None) -> StageResult:
    """Fine-tune the input "policy" on its best replies by the input "reward" or the config's rules; give a policy bundle.

    reward: a Python rule (messages of the prompt, reply text) -> number, in place of both. Raises ConfigError, DataError,
    BundleError, TrainingError.
    """
    started = time.monotonic()
    if context.threads:
        torch.set_num_threads(context.threads)
    dtype = compute_dtype(config.trainer.precision, context.device)
    bundle = load_bundle(context.input("policy"), context.device)
    network, tokenizer = bundle.policy, bundle.tokenizer
    judge = make_judge("rejection_sampling", config.rules, context, tokenizer, dtype, reward)
    check_context("rejection_sampling", config.prompt_tokens, config.reply_tokens, [bundle, judge.bundle])
    length = config.length or network.config.context
    if not config.prompt_tokens + config.reply_tokens <= length <= network.config.context:
        raise ConfigError(
            f"rows of {length} tokens, for prompts and replies of up to {config.prompt_tokens + config.reply_tokens} and a "
            f"context of {network.config.context}",
            where="rejection_sampling.length",
            remedy="Choose a length between the two, or 0 for the context",
        )
    left_out, template = LeftOut(), ChatTemplate(tokenizer)
    where = "rejection_sampling.sources"
    sources = open_sources(config.sources, context.data_directory, "conversations", where)
    choose = partial(
        choose_prompts,
        "rejection_sampling",
        sources,
        config.sources,
        prompt_tokens=config.prompt_tokens,
        template=template,
        seed=context.seed,
        left_out=left_out,
        unfit=judge.problem,
    )
    train, heldout = choose("train", config.train_prompts), choose("heldout", config.heldout_prompts)
    sample = sampled_in_parts(
        engine_sampler(
            network,
            tokenizer,
            reply_tokens=config.reply_tokens,
            temperature=config.temperature,
            slots=config.slots,
            dtype=dtype,
        )
    )
    weights = sha256_file(bundle.directory / "model.safetensors")
    key = sha256_json([weights, tokenizer.fingerprint, config.reply_tokens, config.temperature, str(dtype)])
    found = sample_candidates(
        sample,
        scored_in_parts(judge.scorer),
        train,
        config.candidates,
        context.seed,
        context.directory / "replies",
        key,
    )
    examples = best_examples(found, config.least_score, left_out)
    curve = found.curve()
    console.say(
        f"rejection_sampling: {len(examples)} best replies of {len(train)} prompts x {config.candidates}; mean reward "
        f"{curve[0]['reward']:+.3f}, of the best {curve[-1]['reward']:+.3f}; left out "
        f"{json.dumps(dict(left_out.counts), ensure_ascii=False)}"
    )
    if not examples:
        raise DataError(
            "no reply is good enough to learn from",
            where="rejection_sampling",
            remedy="Lower least_score, raise candidates or reply_tokens, or fine-tune the policy first",
        )
    reference = twin(network) if config.lora else load_bundle(bundle.directory, context.device).policy
    freeze(reference)
    if config.lora:
        add_lora(network, config.lora, context.seed)
    batches = PackedBatches(
        [(examples, 1.0)],
        row_length=length,
        rows=max(1, config.batch_tokens // length),
        micro_rows=max(1, config.micro_batch_tokens // length),
        pad_id=tokenizer.pad_id,
        seed=context.seed,
    )
    trained = Trainer(
        network,
        sft_loss,
        batches,
        steps=max(1, math.ceil(config.epochs * batches.rows_an_epoch / batches.rows)),
        optimizer=config.optimizer,
        schedule=config.schedule,
        config=config.trainer,
        directory=context.directory,
        device=context.device,
        seed=context.seed,
        label="rejection_sampling",
    ).run()
    only_first_goes_on()
    own_terms = merge_terms(judge.bundle.terms if judge.bundle else [], source_terms(sources))
    adapted = (
        finish_lora(network, config.lora, bundle, context.directory, "rejection_sampling", own_terms)
        if config.lora
        else {}
    )
    compared = compare(reference, network, judge.scorer, heldout, tokenizer, config, seed=context.seed, dtype=dtype)
    terms = merge_terms(bundle.terms, own_terms)
    metrics: dict[str, Any] = {
        **adapted,
        "steps": trained.steps,
        "loss": trained.loss,
        "kept": len(examples),
        "curve": curve,
        **compared.to_mapping(config.samples),
        **rules_table(
            config.rules if reward is None else (), reference, network, heldout, tokenizer, config.reply_tokens
        ),
        "prompts": {"train": len(train), "heldout": len(heldout)},
        "left_out": left_out.to_mapping(),
        "terms": [dict(row) for row in terms],
        "training_seconds": trained.seconds,
        "seconds": time.monotonic() - started,
    }
    show_comparison("rejection_sampling", compared)
    for rule in metrics.get("rules", []):
        say_rule("rejection_sampling", rule)
    card = ModelCard(
        title="Duihua chat model, fine-tuned on its best replies",
        stage="rejection_sampling",
        description=f"Fine-tuned on the best of {config.candidates} replies of its own to each prompt.",
        terms=terms,
        metrics={"reward gain on held-out prompts": compared.gain.value, "KL from the reference": compared.kl},
    )
    save_bundle(context.directory, network, tokenizer, card)
    result = StageResult(context.directory, metrics)
    result.save(context.directory)
    return result


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
