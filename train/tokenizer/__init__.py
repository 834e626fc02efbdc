"""A tokenizer of spectra: one self-supervised model for every survey's own wavelength grid.

After *Universal Spectral Tokenization* (the paper's code is not public). A spectrum is scaled by its median, cut into
patches of 32 pixels, and each patch becomes a token that knows its wavelengths; a decoder draws the spectrum again
from the tokens. What the encoder learnt serves every task of the image models.

`config`: sizes. `pixels`: scaling, patches, residuals. `wavelengths`: the encoding. `model`: encoder and decoder.
`classifier`: a task's head on the encoder. `pretrain`: training without labels. `reconstruct`: drawing and scoring.
`comparison`: what the drawings are worth beside those of `drawers`.
"""
