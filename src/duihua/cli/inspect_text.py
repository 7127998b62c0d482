"""What `duihua inspect` prints for people, out of the object that `--json` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from duihua import console

COLUMNS = 112
DAY, YEAR = 86_400.0, 365.25 * 86_400.0


def show(found: dict[str, Any], everything: bool = False) -> None:
    """All parts in order: shapes, parameters, memory, work, time, settings, tokenizer and terms."""
    console.say(f"{found.get('directory') or found['preset']}: {found['kind']}. {found.get('about', '')}".rstrip())
    for part in (_shapes, _parameters, _memory, _work, _time):
        part(found)
    if everything or "preset" in found:
        _settings_with_notes(found)
    else:
        console.say()
        console.table("", ("setting", "value"), [(name, str(value)) for name, value in found["config"].items()])
    if "directory" in found:
        _bundle(found)


def size(count: float) -> str:
    """Bytes for people: `1.5 MiB`."""
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count:,.0f} B"


def scaled(count: float) -> str:
    """A large number for people: `2.51 G`; as it is under a thousand."""
    for unit, name in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:,.3g} {name}" if count < 1000 * unit else f"{count / unit:,.0f} {name}"
    return f"{count:,.0f} "


def long_time(seconds: float) -> str:
    """Seconds for people, up to years."""
    if seconds < DAY:
        return console.duration(seconds)
    return f"{seconds / DAY:,.1f} days" if seconds < YEAR else f"{seconds / YEAR:,.1f} years"


def _shape(shape: Sequence[int] | None) -> str:
    return "" if shape is None else " x ".join(map(str, shape))


def layer_name(layer: dict[str, Any]) -> str:
    """`  blocks.0 (x4 alike)`: the last part of the path, set in by its depth, with what it stands for."""
    if not layer["name"]:
        return str(layer["kind"])
    parts = layer["name"].split(".")
    in_block = parts[0] == "blocks"
    own = ".".join(parts[:2]) if in_block and len(parts) == 2 else parts[-1]
    depth = len(parts) - (1 if in_block else 0)
    alike = ""
    if in_block and len(parts) == 2 and layer["copies"] > 1:
        members = layer["members"]
        in_a_row = list(members) == list(range(members[0], members[0] + len(members)))
        alike = f" (x{len(members)} alike" + (")" if in_a_row else f": {', '.join(map(str, members))})")
    return "  " * depth + own + alike + (" (tied)" if layer["tied"] else "")


def _shapes(found: dict[str, Any]) -> None:
    shapes = found["shapes"]
    rows: list[tuple[Any, ...]] = [
        (
            layer_name(layer),
            layer["kind"],
            _shape(layer["input"]),
            _shape(layer["output"]),
            layer["parameters"] or None,
            layer["flops"] or None,
        )
        for layer in shapes["layers"]
    ]
    totals = [sum(layer[key] * layer["copies"] for layer in shapes["layers"]) for key in ("parameters", "flops")]
    rows.append(("total, with all copies", "", "", "", *totals))
    console.say()
    console.table(
        f"One forward pass of {shapes['batch']} rows of {shapes['time']} tokens; parameters and operations of each module "
        "itself",
        ("module", "kind", "input", "output", "parameters", "operations"),
        rows,
    )


def _parameters(found: dict[str, Any]) -> None:
    parameters = found["parameters"]
    rows: list[tuple[Any, ...]] = [
        (g["name"], _shape(g["shape"]), g["copies"], g["parameters"], f"{g['share']:.1%}") for g in parameters["groups"]
    ]
    rows.append(("total", "", None, parameters["total"], "100.0%"))
    console.say()
    console.table("Parameters", ("parameter", "shape", "copies", "parameters", "share"), rows)
    if found["config"]["tied_embeddings"]:
        console.say("The head uses the embedding's matrix, which is counted once.")


def _memory(found: dict[str, Any]) -> None:
    training, shapes, generation = found["training_memory_bytes"], found["shapes"], found["generation"]
    kept = training["activations"]
    rows = [("weights", training["weights"]), ("gradients", training["gradients"])]
    rows += [(f"optimizer state, {kind}", count) for kind, count in training["optimizer"].items()]
    rows += [
        ("activations", kept["plain"]),
        ("activations with gradient checkpointing", kept["checkpointed"]),
        ("loss: gradients of head and vectors, one chunk of logits", kept["loss"]),
        (f"at most, with {training['chosen_optimizer']}", training["total"]),
        (f"at most, with {training['chosen_optimizer']} and checkpointing", training["total_checkpointed"]),
    ]
    console.say()
    console.table(
        f"Memory for training on {shapes['batch']} x {shapes['time']} tokens, precision {training['precision']}",
        ("what", "size"),
        [(name, size(count)) for name, count in rows],
    )
    memory = found["memory_bytes"]
    rows = [("weights, float32", memory["weights_float32"]), ("weights, bfloat16", memory["weights_bfloat16"])]
    if generation is not None:
        context = found["config"]["context"]
        for name, count in generation["cache_bytes"].items():
            rows.append((f"cache of a token of a stream, {name}", count))
            rows.append((f"cache of a stream of {context} tokens, {name}", count * context))
    console.say()
    console.table("Memory for generation", ("what", "size"), [(name, size(count)) for name, count in rows])


def _work(found: dict[str, Any]) -> None:
    flops, generation = found["flops_per_token"], found["generation"]
    rows = [
        ("products with the blocks' matrices", flops["blocks"]),
        (f"attention, causal half, rows of {flops['length']}", flops["attention"]),
        ("output layer", flops["head"]),
        ("forward", flops["forward"]),
        ("training: 3 x forward", flops["training"]),
        ("training with gradient checkpointing: about 4 x in the blocks", flops["training_checkpointed"]),
        ("rule of thumb: 6 x parameters", flops["six_n"]),
    ]
    if generation is not None:
        rows.append((f"generation, {generation['length']} tokens in the cache", generation["flops"]))
    if found["optimizer_flops_per_step"]:
        tokens = found["shapes"]["batch"] * found["shapes"]["time"]
        rows.append((f"Muon's update, in a step of {tokens:,} tokens", found["optimizer_flops_per_step"] / tokens))
    console.say()
    console.table(
        "Operations for a token (a product of (m, k) and (k, n) is 2 m k n)",
        ("what", "operations", ""),
        [(name, round(count), scaled(count)) for name, count in rows],
    )
    if generation is not None:
        read = ", ".join(f"{size(count)} in {name}" for name, count in generation["bytes_read"].items())
        console.say(f"A generated token of one stream reads {read}.")


def _time(found: dict[str, Any]) -> None:
    if "speed" not in found:
        return
    speed, budget = found["speed"], found["budget"]
    console.say()
    if speed["method"] == "training steps":
        steps = "1 training step" if speed["steps"] == 1 else f"{speed['steps']} training steps"
        console.say(
            f"Measured: {steps} of {speed['batch']} x {speed['time']} tokens in "
            f"{console.duration(speed['seconds'])} on {speed['device']}, {console.counted(speed['threads'], 'thread')}, "
            f"precision {speed['precision']}: {speed['tokens_per_second']:,.0f} tokens/s, "
            f"{scaled(speed['operations_per_second'])}FLOP/s."
        )
    else:
        console.say(
            f"Measured: matrix products at {scaled(speed['operations_per_second'])}FLOP/s on {speed['device']}, because "
            f"{speed['reason']}; at most {speed['tokens_per_second']:,.3g} tokens/s."
        )
    least = "" if speed["method"] == "training steps" else "at least "
    console.say(
        f"{budget['tokens']:,} tokens take {least}{long_time(budget['seconds'])} here ({scaled(budget['flops'])}FLOP)."
    )


def _settings_with_notes(found: dict[str, Any]) -> None:
    console.say()
    for name, value in found["config"].items():
        console.say(f"{name}: {value}")
        console.say(textwrap.indent(textwrap.fill(found["config_notes"].get(name, ""), COLUMNS - 4), "    "))


def _bundle(found: dict[str, Any]) -> None:
    console.say()
    if found["tokenizer"] is None:
        console.say("No tokenizer in this directory.")
    else:
        names = {id: name for name, id in found["tokenizer"]["control_tokens"].items()}
        stops = ", ".join(f"{id} {names.get(id, '')}".strip() for id in found["stop_ids"])
        console.say(f"Tokenizer: {found['tokenizer']['vocabulary_size']:,} ids; a reply ends at {stops or 'nothing'}.")
    if found["normalisation"]:
        scores = found["normalisation"]
        console.say(f"Scores: mean {scores['mean']:.4g}, standard deviation {scores['standard_deviation']:.4g}.")
    if "task" in found:
        classes = ", ".join(found["task"]["classes"])
        console.say(f"Task: {found['task']['task']}{f' into {classes}' if classes else ''}.")
    if found["terms"]:
        console.say()
        console.table(
            "Data", ("source", "licence"), [(terms["name"], terms.get("licence", "")) for terms in found["terms"]]
        )
