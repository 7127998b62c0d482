"""The reward model: which of two replies is liked better (Bradley and Terry 1952; Stiennon et al. 2020, section 3.4).

It is the SFT decoder with one number a position in place of the token head, read at the reply's stop token. The loss is
-log sigmoid(r_chosen - r_rejected). A difference cannot teach a constant, so the head has no bias, and the offset and
scale of the reward are set afterwards: mean 0 and standard deviation 1 over replies of the policy that PPO starts from
(Ziegler et al. 2019, section 2.1), checked on other replies and stored with the bundle.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from duihua import console
from duihua.data.pairs import Exchange
from duihua.errors import DataError
from duihua.models.bundle import ModelCard, Normalisation, load_bundle, merge_terms, save_bundle
from duihua.models.heads import ScoredDecoder
from duihua.nn.lora import add_lora, merge_lora
from duihua.stages.configs.reward import RewardConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.pair_batches import PairBatches
from duihua.stages.prepared_pairs import prepare_pairs
from duihua.stages.pretrain import source_terms
from duihua.stages.prompts import encode_pair_side
from duihua.stages.reward_measures import Scores, heldout_figures, length_statistics, measure
from duihua.stages.reward_pairs import PairData, accuracy_rows
from duihua.stages.reward_probes import probe
from duihua.stages.scoring import end_scores, score_rows
from duihua.stages.stage_trainer import stage_trainer
from duihua.text.chat_template import ChatTemplate
from duihua.training.precision import compute_dtype
from duihua.training.ranks import only_first_goes_on
from duihua.training.trainer import Batch, LossParts


def bradley_terry(chosen_p: Tensor, rejected_p: Tensor, margin: float = 0.0, centering: float = 0.0) -> Tensor:
    """-log sigmoid(r_c - r_r - margin) + centering (r_c + r_r)^2 for each of p pairs; ln 2 where the two are equal."""
    loss_p = -nn.functional.logsigmoid(chosen_p - rejected_p - margin)
    return loss_p + centering * (chosen_p + rejected_p) ** 2 if centering else loss_p


class Loss:
    """The Bradley-Terry loss of a micro-batch of pairs, summed over pairs."""

    def __init__(self, config: RewardConfig) -> None:
        self.config = config

    def __call__(self, network: nn.Module, batch: Batch) -> LossParts:
        assert isinstance(network, ScoredDecoder)
        chosen_p, rejected_p = end_scores(network, batch["token_ids"], batch["lengths"]).chunk(2)
        losses_p = bradley_terry(chosen_p, rejected_p, self.config.margin, self.config.centering)
        pairs = float(len(losses_p))
        metrics = {
            "accuracy": (float((chosen_p > rejected_p).sum()), pairs),
            "reward_chosen": (float(chosen_p.detach().sum()), pairs),
            "reward_rejected": (float(rejected_p.detach().sum()), pairs),
        }
        return LossParts(losses_p.sum(), pairs, metrics)


def run(config: RewardConfig, context: StageContext) -> StageResult:
    """Train a reward model from the input "policy" (the SFT bundle); give a reward bundle. An input "other" writes the rejected
    reply of every second sampled pair, so that the model tells good replies from more than one way of going wrong.

    Raises ConfigError, DataError (no pairs to learn from), BundleError, TrainingError.
    """
    started = time.monotonic()
    if context.threads:
        torch.set_num_threads(context.threads)
    dtype = compute_dtype(config.trainer.precision, context.device)
    policy = load_bundle(context.input("policy"), context.device)
    template = ChatTemplate(policy.tokenizer)
    length = min(config.length or policy.config.context, policy.config.context)
    data, judged, conversations, other = prepare_pairs(
        "reward", config, context, policy, length, dtype,
        normalising=config.normalisation_samples, verifying=config.verification_samples,
    )  # fmt: skip
    decoder = policy.policy
    decoder.head.weight = decoder.embedding.weight  # the token head is never read again: store and step one matrix less
    network = ScoredDecoder(decoder).initialise_score(context.seed)
    if config.lora:
        add_lora(decoder, config.lora, context.seed)  # the score stays trainable
    batches = PairBatches(
        data.train, config.batch_pairs, config.micro_batch_pairs, policy.tokenizer.pad_id, context.seed
    )

    def scores_of(rows: Sequence[Sequence[int]]) -> Tensor:
        return score_rows(network, rows, policy.tokenizer.pad_id, dtype=dtype)

    def evaluate(step: int) -> dict[str, float]:
        network.eval()
        return heldout_figures(scores_of, data.heldout)

    trained = stage_trainer(
        "reward",
        config,
        context,
        network,
        Loss(config),
        batches,
        steps=config.epochs * batches.steps_per_epoch,
        evaluate=evaluate if data.heldout else None,
    ).run()
    only_first_goes_on()
    merge_lora(network)
    network.eval()
    normalisation, checked = normalise(scores_of, data)
    measured = measure(scores_of, data.heldout)

    def score_texts(items: Sequence[tuple[Exchange, str]]) -> list[float]:
        rows = [encode_pair_side(exchange.prompt, text, template)[0][-length:] for exchange, text in items]
        return [float(score) for score in scores_of(rows)]

    terms = merge_terms(policy.terms, source_terms([*judged, *conversations]))
    if other is not None:
        terms = merge_terms(terms, other.terms)
    metrics: dict[str, Any] = {
        "steps": trained.steps,
        "length": length,
        "tokens": trained.tokens,
        "tokens_per_second": trained.tokens_per_second,
        "loss": trained.loss,
        "skipped_steps": trained.skipped_steps,
        **measured,
        "normalisation": {"mean": normalisation.mean, "std": normalisation.standard_deviation, **checked},
        "probes": probe(data.heldout_exchanges, score_texts) if data.heldout_exchanges else {},
        "pairs": data.counts(),
        "lengths": length_statistics([*data.train, *data.heldout]),
        "left_out": {split: counted.to_mapping() for split, counted in data.left_out.items()},
        "cut": {split: counted.to_mapping() for split, counted in data.cut.items()},
        "terms": [dict(row) for row in terms],
        "training_seconds": trained.seconds,
        "seconds": time.monotonic() - started,
    }
    show(metrics)
    card = ModelCard(
        title="Duihua reward model",
        stage="reward",
        description="Scores a reply at its stop token; learnt from pairs of replies by the Bradley-Terry loss.",
        terms=terms,
        metrics={
            f"held-out accuracy, {kind}": found["value"] for kind, found in metrics["kinds"].items() if found["n"]
        },
    )
    save_bundle(context.directory, network, policy.tokenizer, card, normalisation=normalisation)
    result = StageResult(context.directory, metrics)
    result.save(context.directory)
    return result


def normalise(scores_of: Scores, data: PairData) -> tuple[Normalisation, dict[str, Any]]:
    """Mean and deviation over the reference policy's replies, and what they come to on other replies of it.

    The second result holds the verification sample's mean and standard deviation after normalising (about 0 and 1), their
    standard errors, and the counts. Without conversations the replies of the held-out pairs stand in, which the result says.
    """
    on_policy = len(data.normalising) >= 2
    rows = (
        data.normalising if on_policy else [side for p in data.heldout or data.train for side in (p.chosen, p.rejected)]
    )
    scores = scores_of(rows).double()
    deviation = float(scores.std())
    if not deviation > 0:
        raise DataError("all replies get the same reward", where="reward", remedy="Train longer or on more pairs")
    normalisation = Normalisation(float(scores.mean()), deviation)
    checked: dict[str, Any] = {"n": len(rows), "on_reference_policy": on_policy}
    if len(data.verifying) >= 2:
        other = (scores_of(data.verifying).double() - normalisation.mean) / deviation
        n, m = len(rows), len(other)
        # The verified mean is off by the errors of both samples; the deviation's error assumes nothing but its kurtosis.
        fourth = float((((other - other.mean()) / other.std()) ** 4).mean())
        checked["verification"] = {
            "mean": float(other.mean()),
            "mean_standard_error": math.sqrt(1 / n + float(other.var()) / m),
            "std": float(other.std()),
            "std_standard_error": 0.5 * math.sqrt(max(fourth - 1, 0.0) * (1 / n + 1 / m)),
            "n": m,
        }
    return normalisation, checked


def show(metrics: dict[str, Any]) -> None:
    """The accuracies as a table on the console."""
    rows = accuracy_rows(metrics["kinds"], "human + sampled", metrics["accuracy"])
    if rows:
        console.table("reward: held-out accuracy", ["kind", "accuracy", "low", "high", "pairs"], rows)
