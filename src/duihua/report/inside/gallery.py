"""All pictures, in the order of a lesson: from one attention head to whole models, from training to history."""

from __future__ import annotations

from duihua.config.mapping import suggestion
from duihua.errors import ConfigError
from duihua.report.inside import (
    attention,
    bleu_by_length,
    causal_mask,
    cross_attention,
    gates,
    gradient_reach,
    layer_change,
    length_speed,
    logit_lens,
    loss_curves,
    model_sizes,
    norm_axes,
    padding_mask,
    position_products,
    positions,
    schedules,
    structure,
    walk_through,
)
from duihua.report.inside.picture import Picture

PICTURES: dict[str, Picture] = {
    module.PICTURE.name: module.PICTURE
    for module in (
        walk_through,
        causal_mask,
        padding_mask,
        positions,
        position_products,
        attention,
        cross_attention,
        logit_lens,
        layer_change,
        structure,
        norm_axes,
        gates,
        gradient_reach,
        length_speed,
        bleu_by_length,
        schedules,
        loss_curves,
        model_sizes,
    )
}


def picture(name: str) -> Picture:
    """The picture of that name; ConfigError with the nearest where there is none."""
    if name not in PICTURES:
        raise ConfigError(
            f"there is no picture {name!r}",
            where="--only",
            remedy=f"{suggestion(name, list(PICTURES))}; `duihua figures --list` lists them all",
        )
    return PICTURES[name]
