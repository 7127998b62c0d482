"""DPO: the policy learns from preferences directly (Rafailov et al. 2023, "Direct Preference Optimization").

One network is in memory. What the frozen reference says of every reply is needed again and again and never changes, so it
is computed once with the weights that the policy starts from, before the first step, and kept in `reference.safetensors`;
with LoRA it is what the frozen matrices say without their adapters. The loss is `dpo_math.preference_loss` on sums of
log-probabilities, the pairs are those of the reward stage, laid out as trees (preference_rows.py).

A policy that beats its reference on held-out pairs is not yet one that writes better replies: both log-probabilities often
fall together. So the log-ratios of both sides are logged, and with a reward model as judge the replies before and after
are compared as PPO's are.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from duihua import console
from duihua.data.records import LeftOut
from duihua.data.source import Source
from duihua.errors import ConfigError
from duihua.files import sha256_json, write_atomic
from duihua.models.bundle import Bundle, ModelCard, load_bundle, merge_terms, save_bundle
from duihua.models.decoder import Decoder
from duihua.models.weights import weights_fingerprint
from duihua.nn.lora import add_lora
from duihua.stages.actor_critic import freeze, switch_off_dropout
from duihua.stages.comparison import compare, show_comparison
from duihua.stages.configs.dpo import DPOConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.dpo_math import preference_loss
from duihua.stages.dpo_measures import heldout_figures, measure, show
from duihua.stages.judging import check_context, check_tokenizers, choose_prompts
from duihua.stages.low_rank import finish_lora
from duihua.stages.preference_rows import Tree, TreeBatches, all_log_probabilities, side_log_probabilities, tree_of
from duihua.stages.prepared_pairs import prepare_pairs
from duihua.stages.pretrain import source_terms
from duihua.stages.ranked_pairs import RANKED, check_ranking, ranked_pairs
from duihua.stages.reward_pairs import PairData, nothing_to_learn
from duihua.stages.scoring import reward_scorer
from duihua.stages.stage_trainer import stage_trainer
from duihua.text.chat_template import ChatTemplate
from duihua.training.precision import autocast, compute_dtype
from duihua.training.ranks import Ranks, current, only_first_goes_on
from duihua.training.trainer import Batch, LossParts

REFERENCE_FILE = "reference.safetensors"


class Loss:
    """The preference loss of a micro-batch of trees, summed over pairs."""

    def __init__(self, config: DPOConfig) -> None:
        self.config = config

    def __call__(self, network: nn.Module, batch: Batch) -> LossParts:
        """Metrics: accuracy and margin of the implicit rewards, those and the log-probabilities of both sides, and the chosen
        reply's negative log-likelihood a token, all means of pairs."""
        assert isinstance(network, Decoder)
        config = self.config
        policy, reference = side_log_probabilities(network, batch), batch["reference"]
        by_token = policy / batch["lengths"]
        nll_p = -by_token.chunk(2)[0]
        if config.average_tokens:
            policy, reference = by_token, reference / batch["lengths"]
        (chosen_p, rejected_p), (reference_chosen_p, reference_rejected_p) = policy.chunk(2), reference.chunk(2)
        losses_p = preference_loss(
            chosen_p,
            rejected_p,
            reference_chosen_p,
            reference_rejected_p,
            beta=config.beta,
            loss=config.loss,
            label_smoothing=config.label_smoothing,
        )
        if config.nll_weight:
            losses_p = losses_p + config.nll_weight * nll_p
        rewards_chosen_p = config.beta * (chosen_p - reference_chosen_p).detach()
        rewards_rejected_p = config.beta * (rejected_p - reference_rejected_p).detach()
        pairs = float(len(losses_p))
        metrics = {
            "accuracy": (float((rewards_chosen_p > rewards_rejected_p).sum()), pairs),
            "margin": (float((rewards_chosen_p - rewards_rejected_p).sum()), pairs),
            "reward_chosen": (float(rewards_chosen_p.sum()), pairs),
            "reward_rejected": (float(rewards_rejected_p.sum()), pairs),
            "logprob_chosen": (float(chosen_p.detach().sum()), pairs),
            "logprob_rejected": (float(rejected_p.detach().sum()), pairs),
            "nll_chosen": (float(nll_p.detach().sum()), pairs),
        }
        return LossParts(losses_p.sum(), pairs, metrics)


def run(config: DPOConfig, context: StageContext) -> StageResult:
    """Train the input "policy" on preferences; give a policy bundle. An input "reward" judges the replies at the end, and
    with `ranked_pairs` says which of the policy's own replies make pairs.

    Raises ConfigError, DataError (no pair to learn from), BundleError, TrainingError.
    """
    started = time.monotonic()
    if context.threads:
        torch.set_num_threads(context.threads)
    dtype = compute_dtype(config.trainer.precision, context.device)
    bundle = load_bundle(context.input("policy"), context.device)
    network, tokenizer = bundle.policy, bundle.tokenizer
    judge = load_bundle(context.inputs["reward"], context.device) if "reward" in context.inputs else None
    if judge is not None:
        check_tokenizers(tokenizer, judge)
    check_ranking(config, judge)
    if (config.heldout_prompts or config.ranked_pairs) and config.conversations:
        check_context("dpo", config.prompt_tokens, config.reply_tokens, [bundle, judge])
    template = ChatTemplate(tokenizer)
    length = min(config.length or network.config.context, network.config.context)
    if length < 4:
        raise ConfigError(
            f"must leave room for a prompt and a reply, found {length}",
            where="dpo.length",
            remedy="Raise length, or start from a model with a longer context",
        )
    data, judged, conversations, _ = prepare_pairs(
        "dpo", config, context, bundle, length, dtype, open_ends=True, further=config.ranked_pairs
    )
    if config.ranked_pairs and judge is not None:
        data.train += ranked_pairs(
            config,
            bundle,
            judge,
            conversations,
            context.directory / "ranked",
            context.seed,
            dtype,
            data.left_out["train"],
        )
    if not data.train:
        raise nothing_to_learn(data.left_out["train"], "dpo")
    trees, heldout = [tree_of(pair) for pair in data.train], [tree_of(pair) for pair in data.heldout]
    switch_off_dropout(network)
    network.eval()

    def log_probabilities(of: Sequence[Tree], ranks: Ranks | None = None) -> Tensor:
        with autocast(dtype, context.device):
            return all_log_probabilities(
                network, of, config.row_tokens, config.micro_batch_tokens, tokenizer.pad_id, ranks
            )

    weights = weights_fingerprint(bundle.directory)
    key = sha256_json([weights, str(dtype), [[tree.prompt, tree.chosen, tree.rejected] for tree in [*trees, *heldout]]])
    reference = reference_of([*trees, *heldout], log_probabilities, context.directory / REFERENCE_FILE, key)
    if config.lora:
        add_lora(network, config.lora, context.seed)
    batches = TreeBatches(
        trees,
        reference[: len(trees)],
        batch=config.batch_pairs,
        row_tokens=config.row_tokens,
        micro_batch_tokens=config.micro_batch_tokens,
        pad_id=tokenizer.pad_id,
        seed=context.seed,
    )

    def evaluate(step: int) -> dict[str, float]:
        network.eval()
        found = log_probabilities(heldout, Ranks())  # the first rank evaluates, alone
        return heldout_figures(config, data.heldout, reference[len(trees) :], found, heldout)

    trained = stage_trainer(
        "dpo",
        config,
        context,
        network,
        Loss(config),
        batches,
        steps=config.epochs * batches.steps_per_epoch,
        evaluate=evaluate if heldout else None,
    ).run()
    only_first_goes_on()
    terms = source_terms([*judged, *conversations])
    adapted = finish_lora(network, config.lora, bundle, context.directory, "dpo", terms) if config.lora else {}
    network.eval()
    measured = measure(config, data.heldout, reference[len(trees) :], log_probabilities(heldout), heldout)
    metrics: dict[str, Any] = {
        **adapted,
        "steps": trained.steps,
        "length": length,
        "tokens": trained.tokens,
        "tokens_per_second": trained.tokens_per_second,
        "loss": trained.loss,
        "skipped_steps": trained.skipped_steps,
        "last_update": trained.last_metrics,
        **measured,
        **compared_replies(config, context, bundle, judge, conversations, template, dtype),
        "pairs": pair_counts(data),
        "left_out": {split: counted.to_mapping() for split, counted in data.left_out.items()},
        "cut": {split: counted.to_mapping() for split, counted in data.cut.items()},
        "terms": [dict(row) for row in merge_terms(bundle.terms, terms)],
        "training_seconds": trained.seconds,
        "seconds": time.monotonic() - started,
    }
    show(metrics)
    card = ModelCard(
        title="Duihua chat model, trained with DPO",
        stage="dpo",
        description="A policy trained on preferences directly, by direct preference optimisation.",
        terms=merge_terms(bundle.terms, terms),
        metrics={"held-out preference accuracy": measured["accuracy"]["value"]} if heldout else {},
        prompts=bundle.prompts,
    )
    save_bundle(context.directory, network, tokenizer, card)
    result = StageResult(context.directory, metrics)
    result.save(context.directory)
    return result


def pair_counts(data: PairData) -> dict[str, dict[str, int]]:
    """As `PairData.counts`, with the ranked ones."""
    found = data.counts()
    found["train"][RANKED] = sum(pair.kind == RANKED for pair in data.train)
    return found


def reference_of(
    trees: Sequence[Tree], log_probabilities: Callable[[Sequence[Tree]], Tensor], path: Path, key: str
) -> Tensor:
    """What the policy says of both sides of all trees before the first step, (n, 2): read from `path`, or worked out and kept
    there under `key`. Of several ranks the first one reads and writes, and all have the same numbers."""
    ranks = current()
    kept = ranks.share_state(kept_reference(path, key, len(trees)) if ranks.first else None)
    if kept is not None:
        return torch.as_tensor(kept)
    console.say(f"dpo: the reference reads {len(trees):,} pairs, once")
    reference = log_probabilities(trees)
    if ranks.first:
        write_atomic(path, save({"log_probabilities": reference}, metadata={"key": key}))
    return reference


def kept_reference(path: Path, key: str, pairs: int) -> Tensor | None:
    """The reference's log-probabilities (n, 2) from an earlier part of this run; None where there are none, or others."""
    if not path.is_file():
        return None
    content = path.read_bytes()
    try:
        found = load(content)["log_probabilities"]
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, KeyError, ValueError):
        console.say(f"{path.name} cannot be read and is made again")
        return None
    same = header.get("__metadata__", {}).get("key") == key and found.shape == (pairs, 2)
    return found if same else None


def compared_replies(
    config: DPOConfig,
    context: StageContext,
    bundle: Bundle,
    judge: Bundle | None,
    conversations: Sequence[Source],
    template: ChatTemplate,
    dtype: torch.dtype | None,
) -> dict[str, Any]:
    """Replies to held-out prompts before and after, as PPO's result has them; rewards only where there is a judge."""
    if not config.heldout_prompts or not conversations:
        return {}
    prompts = choose_prompts(
        "dpo", conversations, config.conversations, "heldout", config.heldout_prompts, config.prompt_tokens, template,
        context.seed, LeftOut(),
    )  # fmt: skip
    reference = load_bundle(bundle.directory, context.device).policy
    freeze(reference)
    if judge is not None:
        freeze(judge.reward)
    scorer = reward_scorer(judge, dtype=dtype) if judge is not None else lambda asked, _: torch.zeros(len(asked))
    compared = compare(
        reference, bundle.policy, scorer, prompts, bundle.tokenizer, config, seed=context.seed, dtype=dtype
    )
    found = compared.to_mapping(config.samples)
    if judge is not None:
        show_comparison("dpo", compared)
        return found
    for sample in found["samples"]:
        for name in ("reward_before", "reward_after", "total"):
            del sample[name]
    return {name: value for name, value in found.items() if not name.startswith("reward")}


__all__ = ["Loss", "run"]
