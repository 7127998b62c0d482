"""How much of the processor's matrix products a training step reaches, beside nanoGPT and transformers; where the rest goes.

    python benchmarks/throughput.py --nanogpt DIR --peer-python PEER/bin/python      # DIR: a snapshot of nanoGPT
    python benchmarks/throughput.py --systems duihua --shape race --breakdown

Shapes. `13.8M`: a GPT-2 of 6 layers, 384 wide, 6 heads, 8,192 tokens, batch 16 x 256, AdamW in all systems, no dropout; as
nanoGPT's training script has it, with the exact GELU and no biases in the products (transformers has both otherwise). `race`:
what benchmarks/race/duihua.yaml trains, ours only, with Muon, whose orthogonalisation counts as work.

A turn is a process of its own: the peak before, training on the ids of the race text for --seconds after three steps that do
not count (loading, clipping, the optimizer and the log included), the peak after. A peak is the best rate of three products,
two of the model's own sizes and one square, so that a share is of what the machine gave in that minute; there are two, that of
torch.matmul, which the peers use, and that of oneDNN (src/duihua/nn/products.py). Work is 6 for each
weight that multiplies and attention over the half that the mask leaves (models/work.py), the same number for every system;
what a system computes beyond that is its own affair. Systems take turns, medians are shown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROWS, LENGTH, VOCABULARY, WIDTH, LAYERS, HEADS = 16, 256, 8192, 384, 6, 6
RATE, BETAS, DECAY, CLIP = 1e-3, (0.9, 0.95), 0.1, 1.0
SYSTEMS = ("duihua", "nanogpt", "transformers")
NOT_COUNTED = 3
PEAKS = ("peak_matmul", "peak_onednn")
Step = Callable[[], Any]


def peaks(seconds: float = 0.5) -> dict[str, float]:
    """Operations a second of the best of three products, by torch.matmul and by the oneDNN that torch carries."""
    import torch

    def by_onednn(left: Any, right: Any) -> Any:
        return torch.ops.mkldnn._linear_pointwise(left, right.t(), None, "none", [], "")

    best = {"matmul": 0.0, "onednn": 0.0}
    for rows, inner, columns in ((ROWS * LENGTH, WIDTH, 4 * WIDTH), (1024, WIDTH, VOCABULARY), (2048, 2048, 2048)):
        left, right = torch.randn(rows, inner), torch.randn(inner, columns)
        for name, multiply in (("matmul", torch.matmul), ("onednn", by_onednn)):
            multiply(left, right)
            done, began = 0, time.perf_counter()
            while time.perf_counter() - began < seconds:
                multiply(left, right)
                done += 1
            rate = 2.0 * rows * inner * columns * done / (time.perf_counter() - began)
            best[name] = max(best[name], rate)
    return best


def duihua_steps(given: argparse.Namespace) -> tuple[Step, int, int, float]:
    """A step of our trainer, its tokens, the parameters and the work of its optimizer."""
    import dataclasses

    from duihua.data.loaders import StreamedBatches
    from duihua.data.shards import Shard
    from duihua.models.decoder import Decoder, parameter_count
    from duihua.models.presets import preset
    from duihua.stages.pretrain import language_model_loss
    from duihua.training.allocator import keep_freed_memory
    from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
    from duihua.training.optimizers import step_flops
    from duihua.training.trainer import Trainer

    keep_freed_memory()
    if given.shape == "race":
        config = race_config()
        shape, rows, optimizer = config.shape.decoder(VOCABULARY, config.length), config.rows, config.optimizer
    else:
        sizes = {
            "width": WIDTH,
            "layers": LAYERS,
            "heads": HEADS,
            "key_value_heads": HEADS,
            "head_width": WIDTH // HEADS,
        }
        sizes |= {"feed_forward_width": 4 * WIDTH, "context": LENGTH, "vocabulary_size": VOCABULARY}
        none = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), 0.0)
        plain: dict[str, Any] = {"activation": "gelu", "attention_bias": False, "feed_forward_bias": False}
        shape, rows = dataclasses.replace(preset("gpt2"), **sizes, **none, **plain), ROWS
        optimizer = OptimizerConfig(
            kind="adamw", learning_rate=RATE, beta1=BETAS[0], beta2=BETAS[1], weight_decay=DECAY
        )
    network = Decoder(shape).initialise(1)
    trainer = Trainer(
        network,
        language_model_loss,
        StreamedBatches([Shard(given.shard)], [1.0], rows, LENGTH, 1, 1, 0),
        steps=1_000_000,
        optimizer=optimizer,
        schedule=ScheduleConfig(kind="constant", warmup_steps=10),
        config=TrainerConfig(clip_norm=CLIP, log_every=10, checkpoint_seconds=1e9, precision=given.precision),
        directory=Path(tempfile.mkdtemp()),
        label="throughput",
    )
    return trainer.step, rows * LENGTH, parameter_count(network), float(step_flops(network, optimizer))


def rows_of(shard: Path) -> Iterator[tuple[Any, Any]]:
    """Random windows of the ids, inputs and targets (ROWS, LENGTH), as both peers' examples draw them."""
    import numpy
    import torch

    ids = numpy.memmap(shard / "ids.bin", dtype=numpy.uint16, mode="r")
    random = numpy.random.default_rng(1)
    while True:
        starts = random.integers(0, len(ids) - LENGTH - 1, ROWS)
        both = torch.from_numpy(numpy.stack([ids[start : start + LENGTH + 1] for start in starts]).astype(numpy.int64))
        yield both[:, :-1].contiguous(), both[:, 1:].contiguous()


def peer_steps(given: argparse.Namespace, system: str) -> tuple[Step, int, int, float]:
    """A step of a peer's model with AdamW as the peer's own trainer makes it."""
    import torch

    batches, optimizer, model = rows_of(given.shard), None, None
    torch.manual_seed(1)
    if system == "nanogpt":
        sys.path.insert(0, str(given.nanogpt))
        import model as theirs  # type: ignore[import-not-found]

        settings = theirs.GPTConfig(
            block_size=LENGTH,
            vocab_size=VOCABULARY,
            n_layer=LAYERS,
            n_head=HEADS,
            n_embd=WIDTH,
            dropout=0.0,
            bias=False,
        )
        model = theirs.GPT(settings)
        optimizer = model.configure_optimizers(DECAY, RATE, BETAS, "cpu")
    else:
        import transformers

        shape = transformers.GPT2Config(
            vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        model = transformers.GPT2LMHeadModel(shape)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, weight_decay=DECAY)

    def step() -> float:
        inputs, targets = next(batches)
        if system == "nanogpt":
            loss = model(inputs, targets)[1]
        else:
            logits = model(inputs, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.view(-1, VOCABULARY), targets.view(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step, ROWS * LENGTH, sum(weight.numel() for weight in model.parameters()), 0.0


def turn(given: argparse.Namespace) -> dict[str, Any]:
    """One turn in this process."""
    import torch

    torch.set_num_threads(given.threads)
    made = duihua_steps(given) if given.turn == "duihua" else peer_steps(given, given.turn)
    step, tokens, parameters, extra = made
    before = peaks()
    for _ in range(NOT_COUNTED):
        step()
    done, began, processor = 0, time.perf_counter(), time.process_time()
    while done < 2 or time.perf_counter() - began < given.seconds:
        step()
        done += 1
    seconds, busy = time.perf_counter() - began, time.process_time() - processor
    found = {
        "tokens_per_second": tokens * done / seconds,
        "processor_seconds_per_step": busy / done,
        **{f"peak_{name}": max(before[name], rate) for name, rate in peaks().items()},
        "parameters": parameters,
        "work": (given.work_per_token * tokens + extra) * done / seconds,
        "steps": done,
    }
    if given.breakdown and given.turn == "duihua":
        found["breakdown"] = breakdown(step)
    return found


def breakdown(step: Step, steps: int = 10) -> list[dict[str, Any]]:
    """Shares of a step's operator time by kind, Muon's update apart."""
    from torch.profiler import ProfilerActivity, profile, record_function

    from duihua.training.muon import Muon

    plain = Muon.step

    def named(self: Any, *arguments: Any) -> None:
        with record_function("muon"):
            plain(self, *arguments)

    Muon.step = named  # type: ignore[method-assign]
    try:
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            for _ in range(steps):
                step()
    finally:
        Muon.step = plain  # type: ignore[method-assign]
    kinds: dict[str, float] = {}
    muon = [(e.time_range.start, e.time_range.end, e.thread) for e in recorded.events() if e.name == "muon"]
    for event in recorded.events():
        if event.name == "muon":
            continue
        inside = any(start <= event.time_range.start <= end and event.thread == thread for start, end, thread in muon)
        kind = _kind(event.name)
        label = f"Muon: {'products' if kind == 'products' else 'all else'}" if inside else kind
        kinds[label] = kinds.get(label, 0.0) + event.self_cpu_time_total
    whole = sum(kinds.values())

    ordered = sorted(kinds.items(), key=lambda one: -one[1])
    return [
        {"kind": kind, "share": spent / whole, "milliseconds_per_step": spent / steps / 1e3} for kind, spent in ordered
    ]


KINDS = (
    ("products", ("_linear_pointwise", "::mm", "::addmm", "::bmm", "::baddbmm", "::matmul", "::linear")),
    ("attention", ("scaled_dot_product", "flash_attention")),
    ("softmax and loss", ("softmax", "logsumexp", "nll_loss", "::exp", "::log")),
    ("AdamW", ("_fused_adam", "_foreach", "::addcdiv", "::addcmul")),
    ("embedding", ("embedding", "index_put", "index_add", "::index")),
    ("copies", ("::copy_", "::cat", "::clone", "::contiguous", "::_to_copy")),
    (
        "norms and element-wise",
        ("norm", "::mul", "::add", "::sub", "silu", "gelu", "::pow", "rsqrt", "::mean", "::sum", "::neg"),
    ),
)


def _kind(name: str) -> str:
    return next((kind for kind, marks in KINDS if any(mark in name for mark in marks)), "other")


def prepare(given: argparse.Namespace, folder: Path) -> Path:
    """The ids of the first megabytes of the race text, by a tokenizer learnt from them."""
    from race.corpus import first_texts

    from duihua.data.shards import write_shard
    from duihua.text.tokenizer import Tokenizer

    texts = first_texts(given.data, 6)
    write_shard(folder / "shard", texts, Tokenizer.train(texts, VOCABULARY))
    return folder / "shard"


def race_config() -> Any:
    """Pre-training as the race has it."""
    from duihua.config import build, load_yaml
    from duihua.stages.configs.pretrain import PretrainConfig

    file = Path(__file__).parent / "race" / "duihua.yaml"
    return build(PretrainConfig, load_yaml(file)["pretrain"], "pretrain")


def work_per_token(shape: str) -> float:
    """Operations of one token's forward and backward pass, the same for all systems."""
    from duihua.models.work import training_flops

    if shape == "race":
        config = race_config()
        return training_flops(config.shape.decoder(VOCABULARY, config.length), 1)
    blocks = LAYERS * 12 * WIDTH**2
    return 6.0 * (blocks + WIDTH * VOCABULARY) + 6.0 * LAYERS * WIDTH * (LENGTH + 1)


COLUMNS = ("system", "parameters", "tokens/s", "GFLOP/s", "of matmul", "of oneDNN", "processor s a step")


def main() -> int:
    """Take the turns and print the table."""
    given = _arguments()
    if given.turn:
        print(json.dumps(turn(given)))
        return 0
    from duihua import console

    systems = given.systems or [s for s in SYSTEMS if s != "nanogpt" or given.nanogpt]
    systems = ["duihua"] if given.shape == "race" else systems
    with console.json_output(given.json), tempfile.TemporaryDirectory() as folder:
        shard = prepare(given, Path(folder))
        per_token = work_per_token(given.shape)
        found: dict[str, list[dict[str, Any]]] = {system: [] for system in systems}
        for _ in range(given.repeats):
            for system in systems:
                python = str(given.peer_python) if system == "nanogpt" and given.peer_python else sys.executable
                command = [
                    python,
                    __file__,
                    "--turn",
                    system,
                    "--shard",
                    str(shard),
                    "--work-per-token",
                    str(per_token),
                ]
                command += ["--seconds", str(given.seconds), "--threads", str(given.threads), "--shape", given.shape]
                command += ["--precision", given.precision]
                command += ["--nanogpt", str(given.nanogpt)] if given.nanogpt else []
                command += ["--breakdown"] if given.breakdown else []
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(f"{system}: {done.stderr[-2000:]}", file=sys.stderr)
                    return 1
                found[system].append(json.loads(done.stdout.splitlines()[-1]))
    rows = {system: _medians(turns) for system, turns in found.items()}
    if given.json:
        print(json.dumps({"shape": given.shape, "rows": rows, "turns": found}))
        return 0
    shown = [
        [
            system,
            f"{row['parameters']:,.0f}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['work'] / 1e9:.0f}",
            *(f"{100 * row['work'] / row[peak]:.0f} % of {row[peak] / 1e9:.0f}" for peak in PEAKS),
            f"{row['processor_seconds_per_step']:.2f}",
        ]
        for system, row in rows.items()
    ]
    console.table(
        f"{given.shape}, {given.precision}, {given.threads} threads, median of {given.repeats}", COLUMNS, shown
    )
    for line in found["duihua"][-1].get("breakdown", ()) if "duihua" in found else ():
        console.say(f"{line['kind']:28} {100 * line['share']:5.1f} %  {line['milliseconds_per_step']:8.1f} ms")
    return 0


def _medians(turns: list[dict[str, Any]]) -> dict[str, float]:
    keys = ("parameters", "tokens_per_second", "work", "processor_seconds_per_step", *PEAKS)
    return {key: statistics.median(each[key] for each in turns) for key in keys}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=None, help="default: all that can run")
    parser.add_argument("--shape", choices=("13.8M", "race"), default="13.8M")
    parser.add_argument("--nanogpt", type=Path, default=None, help="folder of a snapshot of nanoGPT")
    parser.add_argument("--peer-python", type=Path, default=None, help="Python for nanoGPT (default: this one)")
    parser.add_argument("--data", default="", help="data directory (default $DUIHUA_HOME or ~/.cache/duihua)")
    parser.add_argument("--precision", choices=("fp32", "fastest"), default="fp32", help="ours (default fp32)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of training a turn (default 20)")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each system (default 3)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--breakdown", action="store_true", help="of our step, by kind of operation")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--turn", default="", choices=("", *SYSTEMS), help=argparse.SUPPRESS)
    parser.add_argument("--shard", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--work-per-token", type=float, default=0.0, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
