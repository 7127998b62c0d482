"""`duihua inspect BUNDLE|PRESET`: shapes layer by layer, parameters, memory, work, and how long training would take here.

Why a preset can be looked at without a bundle: what a published shape costs is a question that comes before training it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duihua import console
from duihua.cli import inspect_translator
from duihua.cli.arguments import Parser
from duihua.cli.inspect_text import show
from duihua.config.quantity import quantity
from duihua.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from torch import nn

    from duihua.models.config import DecoderConfig
    from duihua.models.flops import Flops
    from duihua.training.trainer import Batch, LossParts

DEFAULT_BATCH, DEFAULT_TIME = 8, 512
OPTIMIZERS = ("muon", "adamw", "adam", "sgd")


def main(argv: Sequence[str]) -> int:
    """Print what a model consists of and costs; 0 when it could be read. Raises BundleError or ConfigError where not."""
    parser = Parser(
        prog="duihua inspect",
        description="Show the shapes, parameters, memory and work of a model, its tokenizer and the terms of its data.",
    )
    parser.add_argument(
        "model",
        metavar="BUNDLE|PRESET",
        help="a bundle, a Hugging Face model directory, or a shape: gpt1, transformer-base",
    )
    parser.add_argument("--vocabulary-size", type=int, metavar="N", help="tokens of a preset (default: the published)")
    parser.add_argument("--batch", type=int, default=DEFAULT_BATCH, metavar="B", help=f"rows (default {DEFAULT_BATCH})")
    parser.add_argument(
        "--time",
        type=int,
        metavar="T",
        help=f"tokens a row (default {DEFAULT_TIME}, or the context if that is shorter)",
    )
    parser.add_argument("--all", action="store_true", help="show every block, and what each field of the shape means")
    parser.add_argument("--tokens", metavar="N", help="how long training on so many tokens takes here: 10M, 1.5B")
    parser.add_argument("--device", default="cpu", help="for --tokens: cpu or cuda (default cpu)")
    parser.add_argument(
        "--precision",
        choices=("auto", "fastest", "fp32", "bf16", "fp16"),
        default="auto",
        help="of the products (default auto)",
    )
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="muon", help="for --tokens (default muon)")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="for --tokens: compute blocks twice")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    with console.json_output(arguments.json):
        translator = inspect_translator.is_meant(arguments.model)
        found = inspect_translator.inspect_translator(arguments) if translator else inspect_model(arguments)
        if arguments.json:
            console.emit_json(found)
        elif translator:
            inspect_translator.show(found)
        else:
            show(found, everything=arguments.all)
    return 0


def inspect_model(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `--json` prints."""
    from duihua.config.build import field_help
    from duihua.models.activations import count_activations
    from duihua.models.config import DecoderConfig
    from duihua.models.decoder import Decoder
    from duihua.models.flops import count_flops, count_generation
    from duihua.models.inspect import inspect_network
    from duihua.models.trace import collapse, trace
    from duihua.training.config import OptimizerConfig
    from duihua.training.optimizers import state_bytes, step_flops
    from duihua.training.precision import compute_dtype

    budget = None if arguments.tokens is None else parse_count(arguments.tokens)
    network, config, about = _open(arguments.model, arguments.vocabulary_size)
    batch, time = _batch(arguments, config)
    inspection = inspect_network(network, config).to_mapping()
    layers = trace(network, batch, time)
    flops = count_flops(network, layers, batch, time)
    dtype = compute_dtype(arguments.precision, arguments.device)
    kept = count_activations(network, batch, time, dtype, arguments.device)
    weights, trained = (
        4 * sum(weight.numel() for weight in network.parameters() if not trainable or weight.requires_grad)
        for trainable in (False, True)
    )
    optimizers = {kind: state_bytes(network, OptimizerConfig(kind=kind)) for kind in OPTIMIZERS}  # type: ignore[arg-type]
    chosen = weights + trained + optimizers[arguments.optimizer] + kept.loss
    found: dict[str, Any] = {
        **about,
        "config": asdict(config),
        "config_notes": {name: " ".join(text.split()) for name, text in field_help(DecoderConfig).items()},
        "parameters": {
            "total": inspection["total"],
            "groups": inspection["groups"],
            "tied": [layer.name for layer in layers if layer.tied],
        },
        "memory_bytes": inspection["memory"],
        "shapes": {
            "batch": batch,
            "time": time,
            "layers": [asdict(layer) for layer in (layers if arguments.all else collapse(layers))],
        },
        "training_memory_bytes": {
            "weights": weights,
            "gradients": trained,
            "optimizer": optimizers,
            "activations": kept.to_mapping(),
            "precision": arguments.precision,
            "chosen_optimizer": arguments.optimizer,
            "total": chosen + kept.plain,
            "total_checkpointed": chosen + kept.checkpointed,
        },
        "flops_per_token": flops.to_mapping(),
        "optimizer_flops_per_step": step_flops(network, OptimizerConfig(kind=arguments.optimizer)),
        "generation": count_generation(network, flops).to_mapping() if isinstance(network, Decoder) else None,
    }
    if budget is not None:
        needed = found["training_memory_bytes"]["total_checkpointed" if arguments.gradient_checkpointing else "total"]
        work = _work(arguments, flops) + found["optimizer_flops_per_step"] / (batch * time)
        found["speed"] = _measure(arguments, network, config, (batch, time), work, needed)
        seconds = budget / found["speed"]["tokens_per_second"]
        found["budget"] = {"tokens": budget, "seconds": seconds, "flops": budget * work}
    return found


def parse_count(text: str) -> int:
    """`10M` -> 10,000,000; k, M, B (or G) and T in either case, `1e9` too. ConfigError for anything else."""
    try:
        count = round(quantity(text))
    except (ValueError, OverflowError):
        count = 0
    if count < 1:
        raise ConfigError(f"{text!r} is not a number of tokens", where="--tokens", remedy="Write it as 10M or 1.5B")
    return count


def _open(name: str, vocabulary_size: int | None) -> tuple[nn.Module, DecoderConfig, dict[str, Any]]:
    """The network (of a preset, without content), its shape, and what is known beside it."""
    from duihua.models.imagined import build_imagined
    from duihua.models.presets import PRESETS, preset

    if Path(name).exists():
        if vocabulary_size is not None:
            raise ConfigError("a bundle has its own vocabulary", where="--vocabulary-size", remedy="Leave it out")
        return _open_bundle(name)
    if name not in PRESETS:
        names = ", ".join(PRESETS)
        raise BundleError("no such directory", where=name, remedy=f"Name a bundle, a model directory or one of {names}")
    config = preset(name) if vocabulary_size is None else preset(name, vocabulary_size=vocabulary_size)
    about = " ".join((PRESETS[name].__doc__ or "").split())
    return build_imagined(config), config, {"preset": name, "about": about, "kind": "preset"}


def _open_bundle(directory: str) -> tuple[nn.Module, DecoderConfig, dict[str, Any]]:
    from duihua.files import directory_size
    from duihua.models.bundle import load_bundle
    from duihua.models.task_bundle import is_task_bundle, load_task_bundle

    bundle = load_bundle(directory)
    try:
        tokenizer: dict[str, Any] | None = {
            "vocabulary_size": bundle.tokenizer.vocabulary_size,
            "control_tokens": bundle.tokenizer.special_tokens,
            "has_chat_template": bundle.tokenizer.chat_template is not None,
            "fingerprint": bundle.tokenizer.fingerprint,
        }
    except BundleError:
        tokenizer = None
    about: dict[str, Any] = {
        "directory": str(bundle.directory),
        "kind": bundle.kind,
        "disk_bytes": directory_size(bundle.directory),
        "tokenizer": tokenizer,
        "stop_ids": list(bundle.stop_ids),
        "normalisation": asdict(bundle.normalisation) if bundle.normalisation else None,
        "terms": bundle.terms,
    }
    if not is_task_bundle(directory):
        return bundle.network, bundle.config, about
    classifier = load_task_bundle(directory)
    about |= {"kind": "classifier", "task": asdict(classifier.settings)}
    return classifier.classifier, bundle.config, about


def _batch(arguments: argparse.Namespace, config: DecoderConfig) -> tuple[int, int]:
    time = min(config.context, DEFAULT_TIME) if arguments.time is None else arguments.time
    if arguments.batch < 1:
        raise ConfigError(
            f"must be at least 1, found {arguments.batch}",
            where="--batch",
            remedy="Set it to 1 or more, or leave it out",
        )
    if not 1 <= time <= config.context:
        raise ConfigError(
            f"must be within the model's context of {config.context}, found {time}",
            where="--time",
            remedy="Choose fewer tokens, or leave it out",
        )
    return arguments.batch, time


def _work(arguments: argparse.Namespace, flops: Flops) -> float:
    return flops.training_checkpointed if arguments.gradient_checkpointing else flops.training


def _measure(
    arguments: argparse.Namespace,
    network: nn.Module,
    config: DecoderConfig,
    shape: tuple[int, int],
    work: float,
    needed: int,
) -> dict[str, Any]:
    """Real training steps, or products of the model's size where those are too large or slow.

    work: operations for a token, the optimizer's included. needed: bytes of a training step.
    """
    import torch

    from duihua.models.decoder import Decoder
    from duihua.report.machine import available_memory
    from duihua.stages.pretrain import language_model_loss
    from duihua.training.config import OptimizerConfig, TrainerConfig
    from duihua.training.speed import LONGEST_STEP, measure_products, measure_steps

    cuda = arguments.device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        raise ConfigError(f"torch finds no {arguments.device} here", where="--device", remedy="Use --device cpu")
    room = torch.cuda.mem_get_info(arguments.device)[0] if cuda else available_memory()
    batch, time = shape
    console.say("Measuring for a few seconds ...")
    products = measure_products(
        config.width,
        config.feed_forward_width,
        batch,
        time,
        work,
        precision=arguments.precision,
        device=arguments.device,
    )
    if room is not None and needed > 0.8 * room:
        return products.to_mapping() | {"reason": "a training step needs more memory than there is to spare"}
    if products.step_seconds > LONGEST_STEP:
        return products.to_mapping() | {
            "reason": f"a training step takes over {products.step_seconds:.0f} seconds, which a smaller --batch would shorten"
        }
    if any(weight.is_meta for weight in network.parameters()):
        network = Decoder(config).initialise(0)
    return measure_steps(
        network,
        language_model_loss if isinstance(network, Decoder) else _output_loss,
        config.vocabulary_size,
        batch,
        time,
        work,
        config=TrainerConfig(precision=arguments.precision, gradient_checkpointing=arguments.gradient_checkpointing),
        optimizer=OptimizerConfig(kind=arguments.optimizer),
        device=arguments.device,
    ).to_mapping() | {"reason": None}


def _output_loss(network: nn.Module, batch: Batch) -> LossParts:
    """A loss on what a scored decoder or a classifier gives, as much work as its own: the mean square."""
    import torch

    from duihua.models.classifier import Classifier
    from duihua.training.trainer import LossParts

    ids = batch["token_ids"]
    rows = (torch.arange(len(ids), device=ids.device)[:, None],) if isinstance(network, Classifier) else ()
    found = network(ids, *rows)
    return LossParts(found.square().sum(), float(found.numel()))
