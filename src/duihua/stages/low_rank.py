"""What a stage does with LoRA after training: the adapters beside the bundle, and the merged weights in it.

Why both: the adapters are a few per cent of the model's size and can be given away, kept by the dozen and read by PEFT;
the merged bundle is what every other command reads, and it costs nothing more to run than the base did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from duihua import console
from duihua.models.adapters import save_adapter
from duihua.models.bundle import Bundle, merge_terms
from duihua.models.decoder import Decoder
from duihua.nn.lora import lora_parameters, merge_lora
from duihua.nn.lora_config import LoraConfig

ADAPTER_FOLDER = "adapter"


def finish_lora(
    network: Decoder,
    config: LoraConfig,
    base: Bundle,
    directory: Path,
    stage: str,
    terms: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """Write `<directory>/adapter` in PEFT's format, then merge in place. Gives what result.json says of it.

    base: the bundle that the stage started from. terms: of the stage's own data.
    """
    trained = sum(weight.numel() for weight in lora_parameters(network).values())
    every = merge_terms(base.terms, terms)
    save_adapter(directory / ADAPTER_FOLDER, network, config, base=base.directory, stage=stage, terms=every)
    merge_lora(network)
    console.say(f"{stage}: {trained:,} parameters were trained; the adapters are in {directory / ADAPTER_FOLDER}")
    return {"trained_parameters": trained, "lora": {"rank": config.rank, "scale": config.scale}}
