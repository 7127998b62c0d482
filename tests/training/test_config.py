"""Settings that no training can have are refused before anything runs, under the name that the user wrote."""

from __future__ import annotations

from typing import Any

import pytest

from duihua.config import build
from duihua.errors import ConfigError
from duihua.stages import STAGES
from duihua.stages.configs.pretrain import PretrainConfig
from duihua.stages.configs.tokenizer import TokenizerConfig


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": -1}, "pretrain.steps: must be at least 1, found -1"),
        ({"length": 0}, "pretrain.length: must be at least 1"),
        ({"rows": 0}, "pretrain.rows: must be at least 1"),
        ({"micro_batches": 0}, "pretrain.micro_batches: must be at least 1"),
        ({"sources": []}, "pretrain.sources: there is no source of text"),
        ({"optimizer": {"embedding_learning_rate": -0.1}}, "pretrain.optimizer.embedding_learning_rate: cannot be"),
        ({"optimizer": {"beta1": 1.0}}, "pretrain.optimizer.beta1: must be in"),
        ({"optimizer": {"epsilon": 0.0}}, "pretrain.optimizer.epsilon: must be above 0"),
        ({"optimizer": {"newton_schulz_steps": 0}}, "pretrain.optimizer.newton_schulz_steps: must be from 1 to 5"),
        ({"optimizer": {"newton_schulz_steps": 6}}, "pretrain.optimizer.newton_schulz_steps: must be from 1 to 5"),
        ({"schedule": {"warmup_steps": -2}}, "pretrain.schedule.warmup_steps: cannot be negative"),
        ({"schedule": {"decay_fraction": 1.5}}, "pretrain.schedule.decay_fraction: must be between 0 and 1"),
        ({"schedule": {"gamma": 3.0}}, "pretrain.schedule.gamma: must be in"),
        ({"schedule": {"step_size": 0}}, "pretrain.schedule.step_size: must be at least 1"),
        ({"trainer": {"log_every": 0}}, "pretrain.trainer.log_every: must be at least 1"),
        ({"trainer": {"keep_checkpoints": 0}}, "pretrain.trainer.keep_checkpoints: must be at least 1"),
        ({"trainer": {"clip_norm": -1.0}}, "pretrain.trainer.clip_norm: cannot be negative"),
        ({"trainer": {"loss_scale": 0.0}}, "pretrain.trainer.loss_scale: must be above 0"),
    ],
)
def test_impossible_settings_are_refused_by_their_own_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build(PretrainConfig, wrong, "pretrain")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"vocabulary_size": 259}, "tokenizer.vocabulary_size: a vocabulary of 259 cannot hold the 256 bytes"),
        ({"megabytes": 0}, "tokenizer.megabytes: must be above 0"),
        ({"sources": []}, "tokenizer.sources: there is no source of text"),
    ],
)
def test_impossible_settings_of_the_tokenizer_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build(TokenizerConfig, wrong, "tokenizer")
    assert message in str(refused.value)
    assert build(TokenizerConfig, {"vocabulary_size": 260}, "tokenizer").vocabulary_size == 260  # control


def test_the_defaults_of_every_stage_are_possible() -> None:
    for stage in STAGES.values():
        assert build(stage.config_class(), {}, stage.name) == stage.config_class()()
