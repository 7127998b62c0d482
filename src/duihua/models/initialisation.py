"""The weights of a new decoder.

Why the default is not the published one: matrices that write into the residual stream start at zero, so that at first
every block passes its input on, the loss starts at ln(vocabulary size) and a high learning rate is borne from the first
step (Zhang et al. 2019, Fixup). Networks with norms behind the addition need a signal through their blocks at once: for
them, and for the published GPT shapes, there is the normal distribution of Radford et al. 2018 and 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from duihua.models.config import DecoderConfig

_RESIDUAL = ("attention.output.weight", "feed_forward.down.weight")


def initialise(network: nn.Module, config: DecoderConfig, seed: int) -> None:
    """Fill the weights of a `Decoder` from a seed of their own, whatever else has drawn random numbers.

    Norm weights and gates start at one, biases at zero, residual scalars at (1, 0): a block's input as it comes. Matrices:
    see the config's field `initialisation`. Value embeddings start at zero with `zero_output`.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith(".bias"):
                weight.zero_()
            elif name.endswith(".residual_scalars"):
                weight.copy_(torch.tensor([1.0, 0.0]))
            elif weight.ndim == 1:
                weight.fill_(1.0)
            elif config.initialisation == "zero_output":
                _zero_output(name, weight, config, generator)
            else:
                deviation = config.initialiser_range
                if config.initialisation == "normal_scaled" and name.endswith(_RESIDUAL):
                    deviation /= (2 * config.layers) ** 0.5
                weight.copy_(torch.randn(weight.shape, generator=generator) * deviation)


def _zero_output(name: str, weight: Tensor, config: DecoderConfig, generator: torch.Generator) -> None:
    """Uniform with deviation 1/sqrt(inputs), but zero where the residual stream is written to."""
    if name in ("embedding.weight", "position_embedding.weight"):
        deviation = 0.02 if config.tied_embeddings else 0.8
        weight.copy_(torch.randn(weight.shape, generator=generator) * deviation)
    elif name == "head.weight":
        weight.copy_(torch.randn(weight.shape, generator=generator) * 0.001)
    elif name.endswith((*_RESIDUAL, "value_embedding.weight")):
        weight.zero_()
    else:
        bound = (3.0 / weight.shape[1]) ** 0.5
        weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) * bound)
