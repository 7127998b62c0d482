"""Whether prompts and replies of a recipe's stages fit the context of the models that it will make, before any is made.

Why here and not only in the stages: the stage that answers prompts comes last, and finds out after everything before it has
been trained. The stage itself checks again, for bundles from elsewhere (stages/judging.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from duihua.errors import ConfigError

if TYPE_CHECKING:
    from duihua.report.recipe import PlannedStage


def check_contexts(stages: Sequence[PlannedStage]) -> None:
    """Raise ConfigError for the first stage whose prompt, reply and stop token need more than a model that pre-training in this
    recipe makes, whatever came of it in between."""
    contexts: dict[str, int] = {}
    for planned in stages:
        config = planned.config
        if planned.stage.name == "pretrain":
            contexts[planned.name] = config.length
            continue
        known = [
            contexts[source] for source in planned.inputs.values() if isinstance(source, str) and source in contexts
        ]
        if not known:
            continue
        contexts[planned.name] = context = min(known)
        if not getattr(config, "heldout_prompts", True) or not getattr(config, "conversations", True):
            continue  # DPO that writes no replies
        prompt, reply = getattr(config, "prompt_tokens", None), getattr(config, "reply_tokens", None)
        if prompt is not None and reply is not None and prompt + reply + 1 > context:
            raise ConfigError(
                f"prompt_tokens {prompt} and reply_tokens {reply} need a context of {prompt + reply + 1}, and the models of "
                f"this recipe have {context}",
                where=f"{planned.name}.prompt_tokens",
                remedy="Lower prompt_tokens or reply_tokens, or raise pretrain.length",
            )
