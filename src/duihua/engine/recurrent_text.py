"""Text from a recurrent language model: one token after the other, the state carried, nothing read twice.

A decoder keeps the keys and values of all that it has read; here the state is all there is, so a token costs the same
however long the text is. What is drawn, in which order the settings act and how the seed decides is the same as for a
decoder (engine/settings.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from duihua.engine.sampling import Row, SamplingBatch, SamplingSettings, fresh_seed
from duihua.models.recurrent import RecurrentLM


@torch.no_grad()
def continue_ids(
    network: RecurrentLM, prompt: Sequence[int], settings: SamplingSettings, stop_ids: Sequence[int] = ()
) -> list[int]:
    """Ids that follow the end token and `prompt`, until one of `stop_ids` (it is given too) or `max_new_tokens`."""
    was_training = network.training
    network.eval()
    device = network.embedding.weight.device
    seed = fresh_seed() if settings.seed is None else settings.seed
    ends = tuple(stop_ids if settings.stop_ids is None else settings.stop_ids)
    batch = SamplingBatch([Row(settings, seed, ends, prompt)], network.config.vocabulary_size, device)
    made: list[int] = []
    read, states = [network.config.end_id, *prompt], network.start(1)
    while len(made) < settings.max_new_tokens:
        hidden, states = network(torch.tensor([read], device=device), states)
        drawn = batch.sample(network.logits(hidden[:, -1]))
        drawn.check(0)
        made.append(drawn.tokens[0])
        if made[-1] in ends:
            break
        read = made[-1:]
    network.train(was_training)
    return made
