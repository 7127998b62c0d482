"""nanoGPT in the race: its own training script with its own flags, told each step how many steps its time holds.

4 layers, 256 wide, nanochat's tokenizer, AdamW with 1e-3 falling to a tenth by a cosine, 16 x 256 tokens a step; its step is
not compiled, because at this size and on a processor compilation makes it slower. The horizon (`max_iters`,
`lr_decay_iters`) is set behind each optimizer step. Its text is one file of token ids, which `--prepare` writes before the
clock, as its own preparation scripts do: each document opened by the separator. The vocabulary's size is put into its
config, since its own way of reading it is a pickle.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

from race.driver import arguments, finish, read_texts
from race.pace import FAR, Pace

CONTEXT, ROWS, WARM_UP = 256, 16, 20
FLAGS = (
    "--n_layer=4",
    "--n_head=4",
    "--n_embd=256",
    f"--block_size={CONTEXT}",
    f"--batch_size={ROWS}",
    "--gradient_accumulation_steps=1",
    "--learning_rate=1e-3",
    "--min_lr=1e-4",
    f"--warmup_iters={WARM_UP}",
    "--device=cpu",
    "--dtype=float32",
    "--compile=False",
    f"--eval_interval={FAR}",
    "--eval_iters=0",
    f"--max_iters={FAR}",
    f"--lr_decay_iters={FAR}",
)


def peer_tokenizer(folder: Path) -> Any:
    """nanochat's trained tokenizer; its base folder is in the environment."""
    sys.path.insert(0, str(folder))
    return importlib.import_module("nanochat.tokenizer").get_tokenizer()


def prepare(given: argparse.Namespace) -> None:
    """train.bin and vocabulary.json below --text."""
    import numpy

    tokenizer = peer_tokenizer(given.nanochat)
    documents = read_texts(given.train)
    ids = tokenizer.encode(documents, prepend=tokenizer.get_bos_token_id(), num_threads=given.threads)
    given.text.mkdir(parents=True, exist_ok=True)
    numpy.concatenate([numpy.asarray(document, dtype=numpy.uint16) for document in ids]).tofile(
        given.text / "train.bin"
    )
    (given.text / "vocabulary.json").write_text(json.dumps(tokenizer.get_vocab_size()), encoding="utf-8")


def main() -> None:
    if "--prepare" in sys.argv:
        parser = argparse.ArgumentParser(description="Write nanoGPT's text.")
        parser.add_argument("--prepare", action="store_true")
        for name in ("--train", "--text", "--nanochat"):
            parser.add_argument(name, type=Path, required=True)
        parser.add_argument("--threads", type=int, required=True)
        prepare(parser.parse_args())
        return
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="the snapshot")
    parser.add_argument("--nanochat", type=Path, required=True, help="nanochat's snapshot, for the tokenizer")
    parser.add_argument("--text", type=Path, required=True, help="folder that --prepare filled")
    parser.add_argument("flags", nargs="*", help="further flags of its training script")
    train(parser.parse_args())


def train(given: argparse.Namespace) -> None:
    """Run its script to the end of the time, then score."""
    pace = Pace(given.seconds, given.started)
    os.chdir(given.folder)
    sys.path.insert(0, str(given.folder))
    import torch

    torch.set_num_threads(given.threads)
    module: Any = importlib.import_module("model")
    network: Any = module.GPT
    vocabulary = json.loads((given.text / "vocabulary.json").read_text(encoding="utf-8"))
    initialise, make_optimizer = network.__init__, network.configure_optimizers

    def seeded(self: Any, config: Any) -> None:
        torch.manual_seed(given.seed)
        config.vocab_size = vocabulary
        initialise(self, config)

    def after_step(*_: Any) -> None:
        horizon = max(pace.finished_step(), pace.steps)
        # the script stops behind the step whose number is above max_iters, counted from nought
        vars(sys.modules["__main__"]).update(max_iters=horizon - 1, lr_decay_iters=max(horizon, WARM_UP + 1))

    def paced(self: Any, *settings: Any) -> Any:
        optimizer = make_optimizer(self, *settings)
        optimizer.register_step_post_hook(after_step)
        return optimizer

    network.__init__, network.configure_optimizers = seeded, paced
    out = given.result.parent / "out"
    sys.argv = ["train.py", *FLAGS, f"--dataset={given.text}", f"--out_dir={out}", *given.flags]
    trained = runpy.run_path("train.py", run_name="__main__")
    model = trained["raw_model"].eval()
    tokenizer = peer_tokenizer(given.nanochat)
    finish(
        given,
        pace,
        tokens=pace.steps * trained["tokens_per_iter"],
        parameters=sum(weight.numel() for weight in model.parameters()),
        encode=tokenizer.encode,
        token_bytes=tokenizer.decode_single_token_bytes,
        separator=tokenizer.get_bos_token_id(),
        context=CONTEXT,
        log_probabilities=lambda ids: (
            model(ids, ids)[0].float().log_softmax(dim=-1)
        ),  # with targets it gives all places
        vocabulary=vocabulary,
    )


if __name__ == "__main__":
    main()
