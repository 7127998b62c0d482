"""`python on_pretended.py LIBRARY [--forget] -- ARGUMENTS`: `duihua ARGUMENTS` where `cuda` is a pretended GPU.

LIBRARY is pretended.cpp compiled; it must be there before torch is, hence a process of its own. --forget: token ids stay on
the processor wherever the program sends them to the GPU, for the test that this is noticed.
"""

from __future__ import annotations

import ctypes
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any


def main() -> int:
    place = sys.argv.index("--")
    options, arguments = sys.argv[1:place], sys.argv[place + 1 :]
    ctypes.CDLL(options[0], mode=ctypes.RTLD_GLOBAL)
    import torch

    torch.set_num_threads(1)
    # A wrapper cannot count versions as inference mode has it; no gradients is what the stages mean by it.
    torch.inference_mode = lambda mode=True: torch.no_grad() if mode else nullcontext()  # type: ignore[assignment, misc]
    warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad")
    sys.path.insert(0, str(Path(__file__).parent))
    import pretended

    from duihua.cli.main import main as duihua
    from duihua.stages import workload

    workload.product_rate = lambda *_, **__: 1e12  # type: ignore[assignment]  # a GPU's product takes minutes here
    if "--forget" in options:
        to = torch.Tensor.to

        def forgetful(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            return self if self.dtype is torch.int64 and self.dim() else to(self, *args, **kwargs)

        torch.Tensor.to = forgetful  # type: ignore[assignment, method-assign]
    with pretended.pretended_gpu():
        return duihua(arguments)


if __name__ == "__main__":
    sys.exit(main())
