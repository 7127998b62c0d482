"""Settings of the training loop, shared by all stages. No torch here, so that help stays quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class OptimizerConfig:
    """Which parameters move how fast."""

    kind: Literal["muon", "adamw"] = "muon"
    """muon: Muon for the matrices inside the blocks and AdamW for all else; adamw: AdamW for everything."""
    learning_rate: float = 3e-4
    """AdamW's rate for everything when kind is adamw."""
    matrix_learning_rate: float = 0.02
    """Muon's rate for the matrices of the blocks, in units of the update's root-mean-square gain (kind muon)."""
    embedding_learning_rate: float = 0.02
    """AdamW's rate for the embedding (kind muon)."""
    head_learning_rate: float = 0.004
    """AdamW's rate for the output layer (kind muon)."""
    scalar_learning_rate: float = 0.01
    """AdamW's rate for norms and other vectors (kind muon)."""
    beta1: float = 0.8
    """Decay of AdamW's first moment."""
    beta2: float = 0.95
    """Decay of AdamW's second moment."""
    epsilon: float = 1e-8
    """Added to the root of AdamW's second moment."""
    weight_decay: float = 0.0
    """Decoupled weight decay of the matrices, in units of the learning rate."""
    momentum: float = 0.95
    """Muon's momentum (Nesterov)."""
    newton_schulz_steps: int = 5
    """Iterations of Muon's orthogonalisation."""


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate moves, as a factor on every rate above."""

    kind: Literal["wsd", "cosine", "linear", "constant"] = "wsd"
    """wsd: warm-up, stable, linear decay; cosine and linear: warm-up then that decay; constant: warm-up only."""
    warmup_steps: int = 10
    """Steps from 0 to the full rate."""
    decay_fraction: float = 0.4
    """wsd: the share of all steps, at the end, over which the rate falls."""
    final_fraction: float = 0.0
    """What is left of the rate at the last step."""


@dataclass(frozen=True)
class TrainerConfig:
    """How the loop runs; nothing here changes what is learnt, save the clipping."""

    clip_norm: float = 1.0
    """Largest norm of the whole gradient; 0 turns clipping off."""
    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""
    evaluate_every: int = 0
    """Steps between two evaluations during training; 0 for none."""
    checkpoint_seconds: float = 30.0
    """Seconds between two checkpoints."""
    checkpoint_steps: int = 0
    """Steps between two checkpoints, beside the seconds; 0 for none."""
    keep_checkpoints: int = 2
    """Checkpoints that stay on disk."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the matrix products. auto: bf16 on a GPU that has it, fp32 elsewhere. Weights are fp32."""
    most_skipped_steps: int = 10
    """Steps in a row with a loss or gradient that is not finite before the run stops with advice."""
