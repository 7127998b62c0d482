"""nanochat in the race: its own training script with its own flags, told each step how many steps its time holds.

Why the script itself and not a loop around its network: its learning rates, weight decay, momentum and data order are computed
in the script, and a race against something that only looks like them says nothing. What is put in from outside: the seed
(the script has a fixed one), the horizon (`num_iterations`, set behind each optimizer step), nothing for the two things that
take time without training (writing the checkpoint, loading the logger that is switched off).

The vocabulary is trained by its own script before the clock; its text is read and tokenised by its own loader on the clock.
"""

from __future__ import annotations

import importlib
import os
import runpy
import sys
import types
from pathlib import Path
from typing import Any

from race.driver import arguments, finish
from race.pace import FAR, Pace

CONTEXT, ROWS = 256, 16
FLAGS = (
    "--depth=4",
    f"--max-seq-len={CONTEXT}",
    "--head-dim=64",
    "--window-pattern=L",
    f"--device-batch-size={ROWS}",
    f"--total-batch-size={ROWS * CONTEXT}",
    "--device-type=cpu",
    "--eval-every=-1",
    "--core-metric-every=-1",
    "--sample-every=-1",
    f"--num-iterations={FAR}",
)


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="the snapshot")
    parser.add_argument("flags", nargs="*", help="further flags of its training script")
    given = parser.parse_args()
    pace = Pace(given.seconds, given.started)
    os.chdir(given.folder)
    sys.path.insert(0, str(given.folder))
    sys.modules["wandb"] = types.ModuleType("wandb")  # the script uses its own stand-in
    import torch

    torch.set_num_threads(given.threads)
    network: Any = importlib.import_module("nanochat.gpt").GPT
    initialise, make_optimizer = network.init_weights, network.setup_optimizer

    def seeded(self: Any) -> None:
        torch.manual_seed(given.seed)
        initialise(self)

    def after_step(*_: Any) -> None:
        vars(sys.modules["__main__"])["num_iterations"] = max(pace.finished_step(), pace.steps)

    def paced(self: Any, **settings: Any) -> Any:
        optimizer = make_optimizer(self, **settings)
        optimizer.register_step_post_hook(after_step)
        return optimizer

    network.init_weights, network.setup_optimizer = seeded, paced
    importlib.import_module("nanochat.checkpoint_manager").save_checkpoint = lambda *_, **__: None  # type: ignore[attr-defined]
    sys.argv = ["base_train", *FLAGS, *given.flags]
    trained = runpy.run_module("scripts.base_train", run_name="__main__", alter_sys=True)
    model, tokenizer = trained["orig_model"].eval(), trained["tokenizer"]
    finish(
        given,
        pace,
        tokens=pace.steps * trained["total_batch_size"],
        parameters=sum(weight.numel() for weight in model.parameters()),
        encode=tokenizer.encode,
        token_bytes=tokenizer.decode_single_token_bytes,
        separator=tokenizer.get_bos_token_id(),
        context=CONTEXT,
        log_probabilities=lambda ids: model(ids).float().log_softmax(dim=-1),
        vocabulary=tokenizer.get_vocab_size(),
    )


if __name__ == "__main__":
    main()
