"""On one GPU: training speed at 124 million parameters beside nanochat and nanoGPT, and what only a GPU can show to be right.

    python benchmarks/gpu.py --prepare ids.bin               # on a machine with the race text: its tokens, 2 bytes each
    python benchmarks/gpu.py --ids ids.bin --nanochat DIR --nanogpt DIR --seconds 60
    python benchmarks/gpu.py --tiny --device cpu --ids ids.bin         # the same code anywhere; the figures say nothing

speed: 12 layers, 768 wide, 1,024 tokens a row, 50,304 places in the vocabulary (GPT-2's, padded), bf16; each system learns from
random windows of the same ids for the same seconds after its compilation. Ours with Muon, blocks compiled and not; nanochat
with its own optimizer, nanoGPT with AdamW, both compiled whole, as their scripts do. MFU is the work of the weights that
multiply and of causal attention (models/work.py) over the peak of the GPU's data sheet; what a square product reached here is
beside it. held-out: the mean loss of the same last windows after that time. formats: bf16 and fp16 against fp32, step by step
(number_formats.py). compile: losses of 20 steps compiled and not. resume: 10 + 10 steps against 20. road: the tiny recipe,
all stages, PPO among them.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SYSTEMS = ("duihua", "duihua, not compiled", "nanochat", "nanogpt")
PARTS = ("speed", "formats", "compile", "resume", "road")
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bf16 operations a second on the data sheets."""
HELD_OUT, NOT_COUNTED = 64, 5


class Sizes:
    """What is trained: GPT-2's smallest shape, or a toy of it."""

    def __init__(self, tiny: bool) -> None:
        self.layers, self.width, self.heads = (2, 64, 4) if tiny else (12, 768, 12)
        self.vocabulary, self.length = (8192, 64) if tiny else (50_304, 1024)


class Windows:
    """A batch source: random windows of the ids, all but the last hundredth of them."""

    def __init__(self, file: Path, rows: int, length: int) -> None:
        import numpy
        import torch

        self.ids = numpy.memmap(file, dtype=numpy.uint16, mode="r")
        self.rows, self.length = rows, length
        self.generator = torch.Generator().manual_seed(1)
        self.held_out = len(self.ids) - len(self.ids) // 100

    def _at(self, starts: list[int]) -> Any:
        import numpy
        import torch

        both = numpy.stack([self.ids[start : start + self.length + 1] for start in starts]).astype(numpy.int64)
        return torch.from_numpy(both)

    def next(self) -> list[dict[str, Any]]:
        import torch

        starts = torch.randint(self.held_out - self.length - 1, (self.rows,), generator=self.generator)
        both = self._at(starts.tolist())
        return [{"token_ids": both[:, :-1].contiguous(), "targets": both[:, 1:].contiguous()}]

    def held_out_rows(self) -> Any:
        """HELD_OUT windows at even distances."""
        room = len(self.ids) - self.length - 1 - self.held_out
        return self._at([self.held_out + place * room // HELD_OUT for place in range(HELD_OUT)])

    def state_dict(self) -> dict[str, Any]:
        return {"random": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["random"])


def our_trainer(given: argparse.Namespace, folder: Path, compiled: bool, steps: int, precision: str = "bf16") -> Any:
    """Our trainer on the shape."""
    import dataclasses

    from duihua.models.decoder import Decoder
    from duihua.models.presets import preset
    from duihua.stages.pretrain import language_model_loss
    from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
    from duihua.training.trainer import Trainer

    sizes = Sizes(given.tiny)
    shape = dataclasses.replace(
        preset("qwen3"),
        width=sizes.width,
        layers=sizes.layers,
        heads=sizes.heads,
        key_value_heads=sizes.heads,
        head_width=sizes.width // sizes.heads,
        feed_forward_width=sizes.width * 8 // 3,
        vocabulary_size=sizes.vocabulary,
        context=sizes.length,
    )
    return Trainer(
        Decoder(shape).initialise(1),
        language_model_loss,
        Windows(given.ids, given.rows, sizes.length),
        steps=steps,
        optimizer=OptimizerConfig(kind="muon", beta1=0.9),
        schedule=ScheduleConfig(kind="constant", warmup_steps=20),
        config=TrainerConfig(
            precision=precision,  # type: ignore[arg-type]
            compile="blocks" if compiled else "off",
            log_every=10,
            checkpoint_seconds=1e9,
        ),
        directory=folder,
        device=given.device,
        seed=1,
        label="gpu",
    )


def our_system(given: argparse.Namespace, compiled: bool) -> tuple[Callable[[], Any], Any, float]:
    """A step, the network that is scored by (ids) -> logits, and the work of a token."""
    from duihua.models.work import training_flops

    trainer = our_trainer(given, Path(tempfile.mkdtemp()), compiled, 1_000_000)
    return trainer.step, trainer.network, training_flops(trainer.network.config, 1)


def peer_system(given: argparse.Namespace, system: str) -> tuple[Callable[[], Any], Any, float]:
    """The same of a peer: its network and optimizer in the loop of its own script, whole network compiled."""
    import torch

    sizes = Sizes(given.tiny)
    sys.path.insert(0, str(given.nanochat if system == "nanochat" else given.nanogpt))
    torch.manual_seed(1)
    work = 6.0 * (12 * sizes.layers * sizes.width**2 + sizes.width * sizes.vocabulary)
    work += 6.0 * sizes.layers * sizes.width * (sizes.length + 1)
    if system == "nanochat":
        from nanochat.gpt import GPT, GPTConfig  # type: ignore[import-not-found]

        with torch.device("meta"):
            model = GPT(
                GPTConfig(
                    sequence_len=sizes.length, vocab_size=sizes.vocabulary, n_layer=sizes.layers, n_head=sizes.heads,
                    n_kv_head=sizes.heads, n_embd=sizes.width, window_pattern="L",
                )
            )  # fmt: skip
        model.to_empty(device=given.device)
        model.init_weights()
        optimizer = model.setup_optimizer()
    else:
        from model import GPT, GPTConfig  # type: ignore[import-not-found, no-redef]

        settings = GPTConfig(
            block_size=sizes.length, vocab_size=sizes.vocabulary, n_layer=sizes.layers, n_head=sizes.heads,
            n_embd=sizes.width, dropout=0.0, bias=False,
        )  # fmt: skip
        model = GPT(settings).to(given.device)
        optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), torch.device(given.device).type)
    run = torch.compile(model, dynamic=False) if not given.tiny else model
    source = Windows(given.ids, given.rows, sizes.length)
    autocast = torch.autocast(torch.device(given.device).type, torch.bfloat16, enabled=system == "nanogpt")

    def step() -> None:
        batch = {name: tensor.to(given.device) for name, tensor in source.next()[0].items()}
        with autocast:
            loss = run(batch["token_ids"], batch["targets"])
        loss = loss[1] if isinstance(loss, tuple) else loss
        loss.backward()
        if system == "nanogpt":
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.zero_grad(set_to_none=True)
        float(loss.detach())

    return step, model, work


def held_out_loss(given: argparse.Namespace, network: Any, system: str) -> float:
    """Mean loss of the held-out windows, in fp32 over each system's own logits."""
    import torch

    sizes = Sizes(given.tiny)
    rows = Windows(given.ids, given.rows, sizes.length).held_out_rows().to(given.device)
    network.eval()
    total = 0.0
    with torch.no_grad(), torch.autocast(torch.device(given.device).type, torch.bfloat16):
        for row in rows.split(4):
            inputs, targets = row[:, :-1].contiguous(), row[:, 1:].contiguous()
            logits = network(inputs, targets)[0] if system == "nanogpt" else network(inputs)
            flat = logits[..., : sizes.vocabulary].reshape(-1, sizes.vocabulary).float()
            total += float(torch.nn.functional.cross_entropy(flat, targets.reshape(-1), reduction="sum"))
    return total / rows[:, 1:].numel()


def turn(given: argparse.Namespace) -> dict[str, Any]:
    """One system's training in this process."""
    import torch

    ours = given.turn.startswith("duihua")
    began = time.perf_counter()
    step, network, work = our_system(given, given.turn == "duihua") if ours else peer_system(given, given.turn)
    torch.backends.cuda.enable_cudnn_sdp(True)  # for every system alike: all batches have one shape
    for _ in range(NOT_COUNTED):
        step()
    wait(given.device)
    compiled, started, steps = time.perf_counter() - began, time.perf_counter(), 0
    while time.perf_counter() - started < given.seconds:
        step()
        steps += 1
    wait(given.device)
    seconds = time.perf_counter() - started
    rate = steps * given.rows * Sizes(given.tiny).length / seconds
    cuda = torch.device(given.device).type == "cuda"
    memory = torch.cuda.max_memory_allocated() / 2**30 if cuda else math.nan
    return {
        "system": given.turn,
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "tokens_per_second": rate,
        "operations_per_second": rate * work,
        "memory_gib": memory,
        "steps": steps,
        "setup_seconds": compiled,
        "held_out": held_out_loss(given, network, given.turn),
    }


def wait(device: str) -> None:
    """Until the GPU has done what it was given."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def measured_peak(device: str) -> float:
    """Operations a second of a bf16 product of 8,192 squared."""
    import torch

    size = 8192 if torch.device(device).type == "cuda" else 512
    left = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    best = 0.0
    for _ in range(20):
        wait(device)
        began = time.perf_counter()
        left @ left
        wait(device)
        best = max(best, 2.0 * size**3 / (time.perf_counter() - began))
    return best


def losses(given: argparse.Namespace, compiled: bool, precision: str, parts: tuple[int, ...]) -> list[float]:
    """The losses of sum(parts) steps, the trainer made anew from its checkpoint behind each part."""
    found: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for last in [sum(parts[: place + 1]) for place in range(len(parts))]:
            trainer = our_trainer(given, Path(folder), compiled, sum(parts), precision)
            trainer._resume()
            while trainer.step_number < last:
                found.append(trainer.step()["loss"])
            trainer.save()
    return found


def widest(ours: list[float], theirs: list[float]) -> float:
    """Largest relative distance of two curves."""
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))


def main() -> int:
    """Run the parts that were asked for, each in processes of its own, and print what they found."""
    given = _arguments()
    if given.prepare:
        return prepare(given)
    if given.turn:
        print(json.dumps(turn(given)))
        return 0
    found: dict[str, Any] = {}
    if "speed" in given.parts:
        found["peak"] = {"measured": measured_peak(given.device), "data_sheet": data_sheet(given.device)}
        found["speed"] = [row for system in given.systems if (row := _turn(given, system))]
    for precision in ("fp32", "bf16"):
        if "compile" in given.parts:
            plain = losses(given, False, precision, (20,))
            found[f"compile {precision}"] = widest(losses(given, True, precision, (20,)), plain)
        if "resume" in given.parts:
            found[f"resume {precision}"] = widest(
                losses(given, False, precision, (10, 10)), losses(given, False, precision, (20,))
            )
    here = Path(__file__).parent
    if "formats" in given.parts:
        command = [sys.executable, str(here / "number_formats.py"), "--device", given.device, "--steps", "60", "--json"]
        found["formats"] = _json(command)
    if "road" in given.parts:
        with tempfile.TemporaryDirectory() as folder:
            recipe = str(here.parent / "recipes" / "tiny.yaml")
            command = [sys.executable, "-m", "duihua", "run", recipe, "--output", folder, "--device", given.device]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            summary = Path(folder) / "summary.json"
            found["road"] = json.loads(summary.read_text()) if done.returncode == 0 else done.stderr[-3000:]
    print(json.dumps(found, indent=1))
    return 0


def data_sheet(device: str) -> float | None:
    """The peak of this GPU on paper, where it is in the table."""
    import torch

    if torch.device(device).type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def _turn(given: argparse.Namespace, system: str) -> dict[str, Any] | None:
    if (system == "nanochat" and not given.nanochat) or (system == "nanogpt" and not given.nanogpt):
        return None
    command = [sys.executable, __file__, "--turn", system, "--ids", str(given.ids), "--device", given.device]
    command += ["--seconds", str(given.seconds), "--rows", str(given.rows), *(["--tiny"] if given.tiny else [])]
    for name in ("nanochat", "nanogpt"):
        command += [f"--{name}", str(getattr(given, name))] if getattr(given, name) else []
    return {"system": system, **_json(command)}


def _json(command: list[str]) -> dict[str, Any]:
    """The last line of a command's output, or what it complained of."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": done.stderr[-2000:]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def prepare(given: argparse.Namespace) -> int:
    """Write the ids of the race text, 16 bits each, by a tokenizer of 8,192 learnt from its first megabytes."""
    from race.corpus import first_texts

    from duihua.data.shards import write_shard
    from duihua.text.tokenizer import Tokenizer

    texts = first_texts(given.data)
    with tempfile.TemporaryDirectory() as folder:
        write_shard(Path(folder) / "shard", texts, Tokenizer.train(texts[:2500], 8192))
        given.prepare.parent.mkdir(parents=True, exist_ok=True)
        given.prepare.write_bytes((Path(folder) / "shard" / "ids.bin").read_bytes())
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prepare", type=Path, default=None, help="write the ids to this file and end")
    parser.add_argument("--data", default="", help="data directory for --prepare")
    parser.add_argument("--ids", type=Path, default=Path("ids.bin"), help="file of 16-bit ids")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--nanochat", type=Path, default=None, help="folder of a snapshot")
    parser.add_argument("--nanogpt", type=Path, default=None, help="folder of a snapshot")
    parser.add_argument("--seconds", type=float, default=60.0, help="of training a system (default 60)")
    parser.add_argument("--rows", type=int, default=32, help="rows of 1,024 tokens a step (default 32)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a toy shape, to try the script")
    parser.add_argument("--turn", default="", choices=("", *SYSTEMS), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
