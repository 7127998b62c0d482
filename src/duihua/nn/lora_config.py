"""Settings of LoRA, low-rank adaptation (Hu et al. 2021). No torch here, so that help stays quick."""

from __future__ import annotations

from dataclasses import dataclass

from duihua.errors import ConfigError

MODULES = (
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.output",
    "feed_forward.gate",
    "feed_forward.up",
    "feed_forward.down",
)
"""The matrices of a block that can be adapted; a decoder whose feed-forward layer is not gated has no gate."""


@dataclass(frozen=True)
class LoraConfig:
    """Train small adapters beside frozen matrices: y = W x + (alpha / rank) B A x, with A of `rank` rows.

    `--lora` alone turns it on with these values. All other weights stand still and need neither gradients nor optimizer
    state. The adapters move by AdamW at `optimizer.adapter_learning_rate`, also where the stage trains whole models by
    Muon: orthogonal updates mean nothing to the two factors of one update.
    """

    rank: int = 8
    """Rows of A and columns of B. The paper's table 6 finds 4 to 8 enough for most tasks."""
    alpha: float = 16.0
    """The update is scaled by alpha / rank, so that another rank needs no other learning rate (section 4.1)."""
    dropout: float = 0.0
    """Share of the adapters' input that is zeroed in training."""
    targets: tuple[str, ...] = ("attention", "feed_forward")
    """Matrices of each block that get an adapter: attention.query, attention.key, attention.value, attention.output,
    feed_forward.gate, feed_forward.up, feed_forward.down; attention and feed_forward stand for all of theirs. The paper
    adapts query and value; adapting all at the same number of parameters learns more (Dettmers et al. 2023, section 4)."""
    rank_stabilised: bool = False
    """Scale by alpha / sqrt(rank) instead, which keeps large ranks from learning too slowly (Kalajdzievski 2023)."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(
                f"must be at least 1, found {self.rank}", where="rank", remedy="Set it to 1 or more, or leave it out"
            )
        if self.alpha <= 0:
            raise ConfigError(
                f"must be above 0, found {self.alpha}", where="alpha", remedy="Set a larger number, or leave it out"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(
                f"must be in [0, 1), found {self.dropout}", where="dropout", remedy="Such as 0.1, or 0 for none"
            )
        unknown = [target for target in self.targets if not any(covers(target, module) for module in MODULES)]
        if unknown or not self.targets:
            raise ConfigError(
                f"there is no matrix {unknown[0]!r} in a block" if unknown else "names no matrix",
                where="targets",
                remedy=f"Choose from attention, feed_forward, {', '.join(MODULES)}",
            )

    @property
    def scale(self) -> float:
        """The factor before B A."""
        return self.alpha / (self.rank**0.5 if self.rank_stabilised else self.rank)


def covers(target: str, module: str) -> bool:
    """Whether a name in `targets` means this module of a block."""
    return module == target or module.startswith(f"{target}.")
