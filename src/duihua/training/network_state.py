"""What of a network goes into a checkpoint, and switching on what the Trainer's config asks of it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from duihua.errors import TrainingError


def switch_on_checkpointing(network: nn.Module, where: str) -> None:
    """Set `gradient_checkpointing` on every network inside that has it; TrainingError where none does."""
    found = [module for module in network.modules() if hasattr(module, "gradient_checkpointing")]
    if not found:
        raise TrainingError(
            f"{type(network).__name__} cannot recompute its activations",
            where=f"{where or 'trainer'}, gradient_checkpointing",
            remedy="Set gradient_checkpointing to false",
        )
    for module in found:
        module.gradient_checkpointing = True  # type: ignore[assignment]


def changing(network: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint must hold: all but the frozen parameters, which the stage loads anew and `frozen_fingerprint`
    tells apart; a LoRA run's checkpoints are small by that."""
    frozen = {name for name, weight in network.named_parameters(remove_duplicate=False) if not weight.requires_grad}
    return {name: tensor for name, tensor in _untied(network.state_dict()).items() if name not in frozen}


def _untied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each stored tensor once: safetensors refuses two names for one memory."""
    seen: set[int] = set()
    kept: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if tensor.numel() and tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        kept[name] = tensor
    return kept
