"""Codes to RGB where the model is: `Renderer.expand_batch` as a torch module, the same bytes on any device."""

from __future__ import annotations

import numpy as np
import torch

from specshards.render.base import Renderer


class Expand(torch.nn.Module):
    """The second half of a renderer, with its tables as buffers: `Expand(drawer).to("cuda")`, or part of a model.

    Nothing in it depends on what the codes hold, so that `torch.compile(fullgraph=True)` takes it.
    """

    cell: torch.Tensor  # int64 (S,): the row of cells that each row of pixels shows, and column alike
    lut: torch.Tensor | None  # uint8 (256, 3)

    def __init__(self, drawer: Renderer) -> None:
        super().__init__()
        size = drawer.config.size
        self._shape, self._block, self._empty = drawer.code_shape, drawer.block, drawer.empty
        #: Whole blocks leave a strip free at the right and at the bottom: one column and one row of cells more.
        self._strip = size % drawer.block > 0
        self.register_buffer("cell", torch.arange(size) // drawer.block, persistent=False)
        lut = None if drawer.lut is None else torch.from_numpy(np.array(drawer.lut))
        self.register_buffer("lut", lut, persistent=False)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes uint8 `(B, h, w)` or `(B, h, w, 3)`, as the renderer draws them, to RGB uint8 `(B, 3, S, S)`.

        Raises:
            ValueError: codes of another type or shape.
        """
        if codes.dtype != torch.uint8 or codes.shape[1:] != self._shape:
            raise ValueError(f"codes must be uint8 (B, *{self._shape}), not {codes.dtype} {tuple(codes.shape)}")
        if self._strip:  # black where codes are RGB: `empty` is 0 there
            corner = (0, 1, 0, 1) if codes.ndim == 3 else (0, 0, 0, 1, 0, 1)
            codes = torch.nn.functional.pad(codes, corner, value=self._empty)
        if codes.ndim == 4:
            colours = codes
        elif self.lut is None:
            colours = codes[..., None].expand(-1, -1, -1, 3)
        else:
            colours = self.lut[codes.long()]
        colours = colours.permute(0, 3, 1, 2)
        if self._block == 1:
            return colours.contiguous()
        return colours.index_select(2, self.cell).index_select(3, self.cell)
