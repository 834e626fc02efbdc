"""Encoder and decoder: a spectrum to tokens, and tokens to a spectrum on a grid that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from specshards.train.models.layers import Layer, arrays, line_spread, patches
from specshards.train.models.tokenizer.config import TokenizerConfig
from specshards.train.models.tokenizer.pixels import Pixels, scaled, usable
from specshards.train.models.tokenizer.resolution import ResolutionEncoding
from specshards.train.models.tokenizer.wavelengths import WavelengthEncoding


class Tokens(NamedTuple):
    """What the encoder makes of B spectra in T patches each.

    Attributes:
        values: float32 `(B, T, width)`. Of an unused patch: what the others say about its place.
        used: bool `(B, T)`: patches that were attended to.
        centre: mean wavelength of each patch, float32 `(B, T)`, Angstrom, 0 = padding.
        place: the encoding of each patch's wavelengths, `(B, T, width)`.
    """

    values: Tensor
    used: Tensor
    centre: Tensor
    place: Tensor


class Parts(PreTrainedModel):
    """What encoder, tokenizer and classifier share: how they are saved, and how they begin."""

    config_class = TokenizerConfig
    config: TokenizerConfig
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, WavelengthEncoding):
            # transformers builds a model that it loads without numbers in it, and this buffer is in no file.
            module.turns = module.frequencies().to(module.turns.device)
        elif isinstance(module, Encoder):
            nn.init.trunc_normal_(module.mask_token, std=0.02)
        elif isinstance(module, ResolutionEncoding):
            nn.init.trunc_normal_(module.unknown, std=0.02)


class Encoder(Parts):
    """Spectra to tokens.

    A bad pixel enters as zeros, and a patch with more than half of its pixels bad as a learnt vector instead of its
    content; such patches are attended to by none. So neither bad pixels, nor padding, nor the other spectra of a
    batch change a token.
    """

    base_model_prefix = "encoder"
    main_input_name = "flux"

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__(config)
        self.embed_pixels = nn.Linear(3 * config.patch, config.width)
        self.embed_wavelength = WavelengthEncoding(config.width, config.patch, config.shortest, config.longest)
        self.embed_resolution = ResolutionEncoding(config.width) if config.lsf else None
        self.mask_token = nn.Parameter(torch.zeros(config.width))
        self.layers = nn.ModuleList(Layer(config.width, config.heads, config.expansion) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.post_init()

    def forward(self, flux: Tensor, ivar: Tensor, wavelength: Tensor, lsf_sigma: Tensor | None = None) -> Tokens:
        """Tokens of B spectra of N pixels; see `shards.loader.batch.Stack` for the arguments, float32 `(B, N)`.

        `lsf_sigma` is looked at where `config.lsf` is on; None is unknown everywhere.
        """
        tokens = self.embed(scaled(flux, ivar), wavelength, lsf_sigma)
        values = tokens.values
        for layer in self.layers:
            values = layer(values, tokens.used)
        return tokens._replace(values=self.norm(values))

    def embed(self, pixels: Pixels, wavelength: Tensor, lsf_sigma: Tensor | None = None) -> Tokens:
        """Tokens before the first layer."""
        good = patches(pixels.good, self.config.patch)
        used = usable(good)
        # asinh leaves noise and lines as they are, and keeps a cosmic ray from ruling its patch.
        parts = [patches(values.asinh(), self.config.patch) for values in (pixels.flux, pixels.error)]
        content = self.embed_pixels(torch.cat([*parts, good.to(parts[0].dtype)], dim=2))
        values = torch.where(used[..., None], content, self.mask_token.to(content.dtype))
        # A spectrum without a usable patch attends to one that says so; attention to nothing is not defined.
        attended = used.clone()
        attended[:, 0] |= ~used.any(dim=1)
        place = self.embed_wavelength(wavelength)
        values = values + place
        if self.embed_resolution is not None:
            # Not in `place`, with which the decoder is told where to draw: the tokens have it from here on.
            values = values + self.embed_resolution(lsf_sigma, wavelength, self.config.patch)
        return Tokens(values, attended, centres(wavelength, self.config.patch), place)


class Tokenizer(Parts):
    """Encoder and decoder; see `Encoder`.

    Attributes:
        encoder: what the tasks build on.
    """

    base_model_prefix = "encoder"
    main_input_name = "flux"

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        layers = (Layer(config.width, config.heads, config.expansion) for _ in range(config.decoder_layers))
        self.decoder = nn.ModuleList(layers)
        # Not `norm`: transformers, when it loads, takes that for the encoder's, whose name stands before its own.
        self.norm_drawn = nn.LayerNorm(config.width)
        self.draw = nn.Linear(config.width, config.patch)
        self.post_init()

    def forward(self, batch: Mapping[str, Any], target: Tensor | None = None) -> Tensor:
        """Draw each spectrum again.

        Args:
            batch: `flux`, `ivar` and `wavelength`, and `lsf_sigma` where it is known, float32 `(B, N)`, moved to the
                model's device.
            target: wavelengths to draw at, float32 `(B, M)`, increasing, Angstrom, 0 = padding; the spectrum's own
                by default.

        Returns:
            Flux over its scale (see `pixels.scaled`), float32 `(B, M)`; what it holds at padding has no meaning.
        """
        flux, ivar, wavelength = arrays(batch, self.draw.weight.device)
        tokens = self.encoder(flux, ivar, wavelength, line_spread(batch, flux.device))
        if target is not None:
            tokens = self._moved(tokens, target)
        return self.decode(tokens, (wavelength if target is None else target).shape[1])

    def decode(self, tokens: Tokens, pixels: int) -> Tensor:
        """Tokens to flux on the first `pixels` pixels of their patches, float32 `(B, pixels)`."""
        values = tokens.values + tokens.place
        for layer in self.decoder:
            values = layer(values, tokens.used)
        # 1 is the spectrum's scale: a network that has learnt nothing draws that.
        drawn: Tensor = self.draw(self.norm_drawn(values)).flatten(1)[:, :pixels] + 1
        return drawn.float()

    def _moved(self, tokens: Tokens, wavelength: Tensor) -> Tokens:
        """Tokens for the patches of another grid, float32 `(B, M)`, Angstrom."""
        centre = centres(wavelength, self.config.patch)
        values, used = mixed(tokens, centre)
        return Tokens(values, used, centre, self.encoder.embed_wavelength(wavelength))


def centres(wavelength: Tensor, size: int) -> Tensor:
    """Mean wavelength of each patch, `(B, N)` to `(B, T)`; 0 where there is padding alone."""
    pixels = patches(wavelength, size)
    return pixels.sum(dim=2) / (pixels > 0).sum(dim=2).clamp_min(1)


def mixed(tokens: Tokens, target: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens `(B, M, width)` at the wavelengths of other patches, float32 `(B, M)`, and which of them to attend to.

    Tokens are mixed linearly in log wavelength between the two around each patch; beyond the ends the last one stays.
    A patch is attended to where the token nearest to it was.
    """
    place = torch.where(tokens.centre > 0, tokens.centre.clamp_min(1).log(), torch.inf)
    last = torch.isfinite(place).sum(dim=1, keepdim=True).clamp_min(1) - 1
    at = target.clamp_min(1).log()
    above = torch.minimum(torch.searchsorted(place, at), last)
    below = (above - 1).clamp_min(0)
    low, high = place.gather(1, below), place.gather(1, above)
    share = torch.where(high > low, (at - low) / (high - low), 1.0).nan_to_num().clamp(0, 1)
    low_values, high_values = (
        tokens.values.gather(1, i[..., None].expand(-1, -1, tokens.values.shape[2])) for i in (below, above)
    )
    values = torch.lerp(low_values, high_values, share[..., None].to(low_values.dtype))
    attended = tokens.used.gather(1, torch.where(share < 0.5, below, above)) & (target > 0)
    attended[:, 0] |= ~attended.any(dim=1)
    return values, attended
