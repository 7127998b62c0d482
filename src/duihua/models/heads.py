"""A decoder with one number a position: the reward model and the critic.

Why no bias: a constant cannot change which of two replies scores higher, so a reward model's bias is never learned; the
stored normalisation carries the offset (Huang et al. 2024, detail 3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from duihua.models.decoder import Decoder


class ScoredDecoder(nn.Module):
    """Trunk plus `score`: token ids (b, t) -> one number for each position (b, t), fp32."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.config = decoder.config
        self.score = nn.Linear(decoder.config.width, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def initialise_score(self, seed: int) -> ScoredDecoder:
        """Draw the head from N(0, 1 / sqrt(d + 1)) (Stiennon et al. 2020; Huang et al. 2024). Returns self."""
        generator = torch.Generator().manual_seed(seed)
        deviation = (self.config.width + 1) ** -0.5
        with torch.no_grad():
            self.score.weight.copy_(torch.randn(self.score.weight.shape, generator=generator) * deviation)
        return self

    def forward(
        self,
        token_ids_bt: Tensor,
        *,
        attention_mask_bt: Tensor | None = None,
        positions_bt: Tensor | None = None,
        segments_bt: Tensor | None = None,
        columns_br: Tensor | None = None,
    ) -> Tensor:
        """Scores (b, t) in fp32, or (b, r) of the columns that are wanted."""
        hidden = self.decoder.hidden(
            token_ids_bt,
            attention_mask_bt=attention_mask_bt,
            positions_bt=positions_bt,
            segments_bt=segments_bt,
            columns_br=columns_br,
        )
        scores: Tensor = self.score(hidden).squeeze(-1)
        return scores.float()

    def last_score(self, token_ids_bt: Tensor, attention_mask_bt: Tensor) -> Tensor:
        """The score at each row's last real token, (b,). attention_mask_bt: 1 real, 0 pad, on either side."""
        places = torch.arange(token_ids_bt.shape[1], device=token_ids_bt.device)
        last_b = (attention_mask_bt.long() * (places + 1)).argmax(dim=1)
        scores_b1: Tensor = self(token_ids_bt, attention_mask_bt=attention_mask_bt, columns_br=last_b[:, None])
        return scores_b1[:, 0]
