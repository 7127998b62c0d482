"""The engine and the stages' log-probabilities over other architectures than the default one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from duihua.engine.engine import Engine
from duihua.engine.sampling import SamplingSettings
from duihua.models.decoder import Decoder
from duihua.models.presets import preset
from duihua.stages.actor_critic import ReplyBatch, reply_log_probabilities

SMALL: dict[str, Any] = {
    "vocabulary_size": 61,
    "width": 32,
    "layers": 2,
    "heads": 4,
    "key_value_heads": 4,
    "head_width": 8,
    "feed_forward_width": 48,
    "context": 64,
}


def network(name: str, **changes: Any) -> Decoder:
    made = Decoder(preset(name, **SMALL | changes))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.ndim == 2:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.4)
    return made


def plain(made: Decoder, prompt: list[int], ids: list[int], capped: bool = True) -> torch.Tensor:
    """Log-probabilities of `ids` from one forward over everything."""
    with torch.no_grad():
        hidden = made.eval().hidden(torch.tensor([[*prompt, *ids]]))[0]
        logits = made.logits(hidden) if capped else made.head(hidden)
    places = torch.arange(len(prompt), len(prompt) + len(ids)) - 1
    return logits.log_softmax(-1)[places, torch.tensor(ids)]


@pytest.mark.parametrize("name", ["gpt1", "gpt2", "llama", "fast"])
def test_cached_batched_log_probabilities_equal_those_of_one_forward(name: str) -> None:
    made = network(name, **({"logit_soft_cap": 3.0} if name == "fast" else {}))
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(0, 61, (length,), generator=generator).tolist() for length in (1, 30, 7, 12, 3)]
    made.train()  # dropout must not act while the engine writes
    settings = SamplingSettings(max_new_tokens=20, seed=1)
    for prompt, found in zip(prompts, Engine(made, None, slots=3).generate(prompts, settings), strict=True):
        assert torch.allclose(found.logprobs, plain(made, prompt, found.ids), atol=5e-5, rtol=0)
        if name == "fast":
            assert not torch.allclose(found.logprobs, plain(made, prompt, found.ids, capped=False), atol=1e-2, rtol=0)


def test_the_policys_log_probabilities_are_capped_as_the_engines() -> None:
    made = network("fast", logit_soft_cap=3.0).eval()
    prompts, replies = [[1, 2, 3], [4]], [[5, 6], [7, 8, 9]]
    found = reply_log_probabilities(made, ReplyBatch.pack(prompts, replies, 0))
    for row, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        assert torch.allclose(found[row, : len(reply)].detach(), plain(made, prompt, reply), atol=5e-5)
        assert not torch.allclose(
            found[row, : len(reply)].detach(), plain(made, prompt, reply, capped=False), atol=1e-2
        )
