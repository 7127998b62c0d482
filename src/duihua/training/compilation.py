"""Compiled blocks: where a step is made of many small operations between the matrix products, one program for all of them.

On a GPU norms, rotations and activations each read and write all activations; compiled (torch.compile, Ansel et al. 2024,
"PyTorch 2") they become a few kernels. Block by block instead of the whole network, because all blocks are the same program:
it is made once, in seconds instead of minutes, and the loss, the embedding and everything that generates stay as they are.
Only training goes through it. On a CPU the products take nearly all of the time and compiling makes small models slower,
so there it is only done when it is asked for.

The sums inside a compiled kernel are taken in another order, so results differ in the last digits from those without; a run
goes on from its checkpoints bit by bit only with the same choice.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import nn

from duihua import console
from duihua.errors import TrainingError
from duihua.models.decoder import Decoder
from duihua.training.config import TrainerConfig
from duihua.training.network_state import switch_on_checkpointing

FEWEST_STEPS = 1000
"""auto: shorter trainings end before the compiler has paid for itself."""


def prepare_network(network: nn.Module, config: TrainerConfig, device: torch.device, steps: int, label: str) -> None:
    """Switch on what `config` says about how `network` is computed in training. Raises TrainingError where it cannot be."""
    if config.gradient_checkpointing:
        switch_on_checkpointing(network, label)
    if compiles(config, device, steps) and not compile_blocks(network) and config.compile == "blocks":
        raise TrainingError(
            f"{type(network).__name__} has no blocks to compile",
            where=f"{label or 'trainer'}, compile",
            remedy="Set compile to off",
        )


def compiles(config: TrainerConfig, device: torch.device, steps: int) -> bool:
    """Whether the blocks are to be compiled."""
    if config.compile == "auto":
        useful = device.type == "cuda" and steps >= FEWEST_STEPS and config.sharding == "none"
        return useful and importlib.util.find_spec("triton") is not None
    return config.compile == "blocks"


def compile_blocks(network: nn.Module, backend: str = "inductor") -> int:
    """Have the blocks of every decoder inside compiled when they are first trained; how many there are.

    What the compiler cannot do is done as without it, and torch says so.
    """
    decoders = [module for module in network.modules() if isinstance(module, Decoder)]
    for decoder in decoders:
        decoder.compiled_blocks = [torch.compile(block, backend=backend) for block in decoder.blocks]
    count = sum(len(decoder.blocks) for decoder in decoders)
    if count:
        torch._dynamo.config.suppress_errors = True
        console.say(f"The {count} blocks are compiled at the first step, which takes longer for it")
    return count
