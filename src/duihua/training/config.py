"""Settings of the training loop, shared by all stages. No torch here, so that help stays quick."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from duihua.config import to_mapping
from duihua.errors import ConfigError


@dataclass(frozen=True)
class OptimizerConfig:
    """Which parameters move how fast."""

    kind: Literal["muon", "adamw", "adam", "sgd"] = "muon"
    """muon: Muon for the matrices inside the blocks (Jordan et al. 2024) and AdamW for all else; adamw: AdamW for everything
    (Loshchilov and Hutter 2019); adam: the same with the decay added to the gradient (Kingma and Ba 2015); sgd: the
    gradient itself, with heavy-ball momentum (Polyak 1964)."""
    learning_rate: float = 3e-4
    """The rate for everything when kind is adamw, adam or sgd."""
    matrix_learning_rate: float = 0.02
    """Muon's rate for the matrices of the blocks, in units of the update's root-mean-square gain (kind muon)."""
    embedding_learning_rate: float = 0.02
    """AdamW's rate for the embedding (kind muon)."""
    head_learning_rate: float = 0.004
    """AdamW's rate for the output layer (kind muon)."""
    scalar_learning_rate: float = 0.01
    """AdamW's rate for norms and other vectors (kind muon)."""
    adapter_learning_rate: float = 2e-3
    """The rate for LoRA's adapters in every kind; with muon they move by AdamW. The paper's table 11 has 2e-4 for 345M
    parameters; a model of 5M learns faster at 3e-3 to 1e-2."""
    beta1: float = 0.8
    """Decay of the first moment of Adam and AdamW."""
    beta2: float = 0.95
    """Decay of the second moment of Adam and AdamW."""
    epsilon: float = 1e-8
    """Added to the root of the second moment of Adam and AdamW."""
    weight_decay: float = 0.0
    """Decay of the matrices. muon and adamw: decoupled, in units of the learning rate; adam and sgd: this times the weight is
    added to the gradient, which is L2 regularisation."""
    momentum: float = 0.95
    """Muon's momentum (Nesterov), and that of sgd (heavy ball); 0 for plain gradient descent."""
    newton_schulz_steps: int = 5
    """Iterations of Muon's orthogonalisation, 1 to 5; the polynomials are made for these five."""

    def __post_init__(self) -> None:
        rates = [field.name for field in dataclasses.fields(self) if field.name.endswith("learning_rate")]
        for name in (*rates, "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"cannot be negative, found {getattr(self, name)}",
                    where=name,
                    remedy="Set 0 or more, or leave it out",
                )
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"must be in [0, 1), found {getattr(self, name)}",
                    where=name,
                    remedy="Set a number from 0 to below 1, or leave it out",
                )
        if self.epsilon <= 0:
            raise ConfigError(
                f"must be above 0, found {self.epsilon}", where="epsilon", remedy="Set a larger number, or leave it out"
            )
        if not 1 <= self.newton_schulz_steps <= 5:
            raise ConfigError(
                f"must be from 1 to 5, found {self.newton_schulz_steps}",
                where="newton_schulz_steps",
                remedy="Leave it out: all five are as exact as it gets",
            )


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate moves, as a factor on every rate above."""

    kind: Literal["wsd", "cosine", "linear", "constant", "step", "noam", "plateau"] = "wsd"
    """wsd: warm-up, stable, linear decay (Hu et al. 2024, MiniCPM, section 4); cosine: warm-up, then half a cosine (Loshchilov
    and Hutter 2017; GPT-1, section 4.1); linear: warm-up, then a straight fall; constant: warm-up only; step: the rate is
    multiplied by gamma every step_size steps; noam: after the warm-up it falls as 1/sqrt(step) (Vaswani et al. 2017,
    equation 3, whose rate is this with learning_rate = 1/sqrt(width warmup_steps)); plateau: multiplied by gamma when the
    training loss no longer falls."""
    warmup_steps: int = 10
    """Steps from 0 to the full rate."""
    decay_fraction: float = 0.4
    """wsd: the share of all steps, at the end, over which the rate falls."""
    final_fraction: float = 0.0
    """What is left of the rate at the last step (wsd, cosine, linear), or its floor (step, noam, plateau)."""
    gamma: float = 0.1
    """step, plateau: what the rate is multiplied by each time."""
    step_size: int = 100
    """step: steps from one fall to the next. plateau: steps over which the training loss is averaged before a look at it."""
    patience: int = 5
    """plateau: looks without a new lowest loss that are borne before the rate falls."""
    threshold: float = 1e-4
    """plateau: a loss is a new lowest one when it is under the old by more than this share of it."""

    def __post_init__(self) -> None:
        for name in ("warmup_steps", "patience", "threshold"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"cannot be negative, found {getattr(self, name)}",
                    where=name,
                    remedy="Set 0 or more, or leave it out",
                )
        for name in ("decay_fraction", "final_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"must be between 0 and 1, found {getattr(self, name)}",
                    where=name,
                    remedy="Set a number from 0 to 1, or leave it out",
                )
        if self.step_size < 1:
            raise ConfigError(
                f"must be at least 1, found {self.step_size}",
                where="step_size",
                remedy="Set it to 1 or more, or leave it out",
            )
        if not 0 < self.gamma <= 1:
            raise ConfigError(
                f"must be in (0, 1], found {self.gamma}",
                where="gamma",
                remedy="Set a number above 0 and up to 1, or leave it out",
            )


HIGHER_IS_BETTER = ("judge", "reward", "gold", "accuracy", "bleu", "chrf")
"""Parts of the names of figures of which the lowest is never the best."""


@dataclass(frozen=True)
class TrainerConfig:
    """How the loop runs; nothing here changes what is learnt, save the clipping and the rounding of a shorter precision."""

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
    """Checkpoints that stay on disk, the newest ones."""
    keep_best: str = ""
    """Name of a figure of the evaluations during training, such as heldout_loss: the checkpoint in which it is best stays too.
    Empty for none."""
    best_is: Literal["lowest", "highest"] = "lowest"
    """Which value of `keep_best` is best."""
    end_with: Literal["last", "best"] = "last"
    """The weights that the trained model has: those of the last step, or those of the best checkpoint (with keep_best)."""
    precision: Literal["auto", "fastest", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the matrix products. auto: bf16 on a GPU that has it, fp32 elsewhere; fastest: bf16 also on a processor
    that multiplies it by itself (AVX-512 BF16 or AMX), where training is up to twice as fast; bf16: the range of fp32 with 8
    bits of digits, slow on a processor that must imitate it; fp16: 11 bits, and a loss scale against its small range
    (Micikevicius et al. 2018, section 3). Weights, gradients and optimizer state are fp32."""
    loss_scale: float = 65536.0
    """fp16: what the loss is multiplied by at first; halved by each step with a gradient that is not finite."""
    loss_scale_growth_steps: int = 2000
    """fp16: steps in a row with finite gradients after which the scale is doubled."""
    gradient_checkpointing: bool = False
    """Keep only the input of each block for the backward pass and compute the block once more there: less memory, about a
    third more work, the same gradients (Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost)."""
    compile: Literal["auto", "blocks", "off"] = "auto"
    """blocks: the decoder's blocks are compiled by torch before the first step; off: they are not. auto: on a GPU, for a
    training of 1,000 steps or more that shards nothing. A run that goes on must keep its choice to end with the same bits."""
    sharding: Literal["none", "full"] = "none"
    """Several ranks: none: each holds the whole model; full: weights, gradients and optimizer state are spread over them block
    by block (FSDP2), which takes more messages and, with n ranks, an n-th of the GPU's memory for them; the machine's memory
    holds the whole model for each rank, so that on a processor nothing is won. One rank: the same as none."""
    most_skipped_steps: int = 10
    """Steps in a row that could not be taken (a loss or gradient that is not finite, a spike, nothing to learn from) before the
    run stops with advice."""
    spike_factor: float = 0.0
    """A step whose gradient norm is more than this times the median of the last 128 is skipped and counted, as one that is not
    finite is; 0 for no such rule. Large models use it against spikes of the loss; 5 to 10 touches no ordinary step."""

    def __post_init__(self) -> None:
        for name in ("log_every", "keep_checkpoints", "most_skipped_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"must be at least 1, found {getattr(self, name)}",
                    where=name,
                    remedy="Set it to 1 or more, or leave it out",
                )
        for name in ("clip_norm", "evaluate_every", "checkpoint_seconds", "checkpoint_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"cannot be negative, found {getattr(self, name)}",
                    where=name,
                    remedy="Set 0 or more, or leave it out",
                )
        if self.spike_factor and not 1 < self.spike_factor < float("inf"):
            raise ConfigError(
                f"must be 0 or above 1, found {self.spike_factor}",
                where="spike_factor",
                remedy="5 to 10 touches no ordinary step; 0 skips none",
            )
        if self.best_is == "lowest" and any(part in self.keep_best for part in HIGHER_IS_BETTER):
            raise ConfigError(
                f"the lowest {self.keep_best} would be kept, and that is the worst",
                where="best_is",
                remedy="Set best_is to highest",
            )
        if self.end_with == "best" and not self.keep_best:
            raise ConfigError(
                "needs keep_best, the figure that says which is best", where="end_with", remedy="Name it in keep_best"
            )
        if not 0 < self.loss_scale < float("inf"):
            raise ConfigError(f"must be above 0, found {self.loss_scale}", where="loss_scale", remedy="65536 is usual")
        if self.loss_scale_growth_steps < 1:
            raise ConfigError(
                f"must be at least 1, found {self.loss_scale_growth_steps}",
                where="loss_scale_growth_steps",
                remedy="Set it to 1 or more, or leave it out",
            )


SAVING = ("checkpoint_seconds", "checkpoint_steps", "keep_checkpoints")
"""Fields of a TrainerConfig that say when a training is saved, and not what it becomes: it may go on with others."""


def deciding(config: Any) -> dict[str, Any]:
    """A stage's config as plain JSON, with the defaults for how its training is saved."""
    found = to_mapping(config)
    if isinstance(getattr(config, "trainer", None), TrainerConfig):
        found["trainer"] |= {name: getattr(TrainerConfig, name) for name in SAVING}
    return found


def saved_like(trainer: TrainerConfig, other: TrainerConfig) -> TrainerConfig:
    """`trainer`, saved when `other` is."""
    return dataclasses.replace(trainer, **{name: getattr(other, name) for name in SAVING})
