"""Is this reward model fit to start PPO, and if not, why not? Everything is looked at on held-out data.

PPO is a search for what the reward model gets wrong. So beside accuracy the doctor looks at what such a search finds first:
length (Singhal et al. 2024), repetition and other spoilt replies (`reward_probes.py`), overconfidence, and a normalisation
that does not hold on the policy PPO starts from (Huang et al. 2024, detail 5). With the policy at hand its replies to
held-out prompts are sampled anew; without it what training had checked is told, as such.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from duihua.config import build
from duihua.data.pairs import Exchange
from duihua.data.source import SourceConfig
from duihua.errors import BundleError, ConfigError, DataError
from duihua.files import read_json
from duihua.models.bundle import Bundle, Normalisation, load_bundle
from duihua.models.weights import weights_fingerprint
from duihua.stages.configs.doctors import RewardDoctorConfig
from duihua.stages.configs.reward import RewardConfig
from duihua.stages.diagnosis import Diagnosis
from duihua.stages.judging import check_tokenizers
from duihua.stages.prompts import encode_pair_side, open_sources
from duihua.stages.replies import Sampler, engine_sampler
from duihua.stages.reward_findings import (
    accuracy_findings,
    calibration_finding,
    length_findings,
    normalisation_finding,
    probe_findings,
    verify,
)
from duihua.stages.reward_measures import Scores, correlation, length_statistics, measure
from duihua.stages.reward_pairs import PairData, PairMaker
from duihua.stages.reward_probes import probe
from duihua.stages.scoring import score_rows
from duihua.text.chat_template import ChatTemplate


def diagnose(
    directory: Path,
    config: RewardDoctorConfig,
    data_directory: Path,
    policy: Path | None = None,
    *,
    device: str = "cpu",
    seed: int = 0,
) -> Diagnosis:
    """Examine the reward bundle at `directory`; `policy` is the bundle that PPO would start from.

    Raises BundleError (no reward model, another tokenizer), ConfigError, DataError (no held-out pair).
    """
    judge = load_bundle(directory, device)
    network = judge.reward.eval()
    stored = trained_with(directory)
    settings = replace(
        stored,
        preferences=config.preferences or stored.preferences,
        conversations=config.conversations or stored.conversations,
        heldout_sampled_pairs=config.heldout_pairs,
        heldout_off_topic_pairs=config.heldout_pairs,
    )
    starts = None if policy is None else load_bundle(policy, device)
    if starts is not None:
        check_tokenizers(
            judge.tokenizer,
            starts,
            "the policy has another tokenizer than the reward model",
            "Name the bundle that the reward model was trained from",
        )
    judged = open_sources(settings.preferences, data_directory, "preferences", "preferences")
    conversations = open_sources(settings.conversations, data_directory, "conversations", "conversations")
    with tempfile.TemporaryDirectory() as aside:
        maker = PairMaker(
            settings if starts else replace(settings, heldout_sampled_pairs=0),
            ChatTemplate(judge.tokenizer),
            min(settings.length or judge.config.context, judge.config.context),
            _sampler(starts, settings) if starts else _no_sampler,
            Path(aside),
            "" if starts is None else weights_fingerprint(starts.directory),
            seed,
        )
        data, replies = maker.for_doctor(judged, conversations, with_policy=starts is not None)
    if not data.heldout:
        raise DataError("there is no held-out pair to look at", where=str(directory), remedy="Name preferences")

    def scores_of(rows: Sequence[Sequence[int]]) -> torch.Tensor:
        return score_rows(network, rows, judge.tokenizer.pad_id)

    return examine(config, scores_of, data, replies, maker, judge.normalisation, training_check(directory))


def _no_sampler(*_: object) -> list[Any]:
    raise AssertionError("nothing is sampled without a policy")


def _sampler(bundle: Bundle, settings: RewardConfig) -> Sampler:
    return engine_sampler(
        bundle.policy.eval(),
        bundle.tokenizer,
        reply_tokens=settings.reply_tokens,
        temperature=settings.temperature,
        slots=settings.slots,
    )


def trained_with(directory: Path) -> RewardConfig:
    """The settings that the stage stored beside the bundle; the defaults without sources for a bundle from elsewhere."""
    path = directory / "settings.json"
    if not path.is_file():
        return RewardConfig(preferences=(SourceConfig(name="dpo-en"), SourceConfig(name="dpo-zh")), conversations=())
    try:
        return build(RewardConfig, read_json(path), str(path))
    except ConfigError as error:
        raise BundleError(
            f"settings of another version: {error.problem}",
            where=str(path),
            remedy="Name preferences and conversations, and move the file aside",
        ) from error


def training_check(directory: Path) -> dict[str, Any]:
    """What the stage found when it checked the normalisation; empty where nothing was stored."""
    path = directory / "result.json"
    found: Any = read_json(path) if path.is_file() else {}
    check = found.get("metrics", {}).get("normalisation", {}).get("verification", {})
    return dict(check) if isinstance(check, dict) else {}


def examine(
    config: RewardDoctorConfig,
    scores_of: Scores,
    data: PairData,
    replies: Sequence[tuple[Sequence[int], int]],
    maker: PairMaker,
    normalisation: Normalisation | None,
    at_training: dict[str, Any],
) -> Diagnosis:
    """All checks. replies: fresh replies of the policy (row of ids, tokens of the reply), none where no policy was named."""
    measured = measure(scores_of, data.heldout)
    template, length = maker.template, maker.length

    def score_texts(items: Sequence[tuple[Exchange, str]]) -> list[float]:
        rows = [encode_pair_side(exchange.prompt, text, template)[0][-length:] for exchange, text in items]
        return [float(score) for score in scores_of(rows)]

    probes = probe(data.heldout_exchanges, score_texts) if data.heldout_exchanges else {}
    fresh = scores_of([row for row, _ in replies]) if replies else torch.zeros(0)
    checked = verify(fresh, normalisation) if replies and normalisation else {}
    measured["length_correlation_of_the_policy"] = (
        correlation(fresh, torch.tensor([float(tokens) for _, tokens in replies])) if replies else None
    )
    findings = [
        *accuracy_findings(measured, config),
        calibration_finding(measured, config),
        *length_findings(measured, config),
        *probe_findings(probes, config),
        normalisation_finding(normalisation, checked, at_training, config),
    ]
    figures = {
        **measured,
        "lengths": length_statistics(data.heldout),
        "probes": probes,
        "normalisation": {
            "mean": normalisation.mean if normalisation else None,
            "std": normalisation.standard_deviation if normalisation else None,
            "verification": checked,
            "at_training": at_training,
        },
        "left_out": data.left_out["heldout"].to_mapping(),
    }
    return Diagnosis(findings, figures)
