"""The optimizer by which fine-tuning starts from a trained model, for the stages that must learn alike. No torch here."""

from __future__ import annotations

from duihua.training.config import OptimizerConfig


def fine_tuning_optimizer() -> OptimizerConfig:
    """Muon and AdamW at a quarter of pre-training's rates.

    Supervised fine-tuning and the reward model have the same, since the second continues the first's weights: the rates at
    which these moved in one are those at which they can move in the other (Huang et al. 2024 give both one rate).
    """
    return OptimizerConfig(
        kind="muon",
        matrix_learning_rate=0.005,
        embedding_learning_rate=0.05,
        head_learning_rate=0.001,
        scalar_learning_rate=0.003,
    )
