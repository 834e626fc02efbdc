"""A tokenizer of spectra: one self-supervised model for every survey's own wavelength grid.

After *Universal Spectral Tokenization* (the paper's code is not public). A spectrum is scaled by its median, cut into
patches of 32 pixels, and each patch becomes a token that knows its wavelengths; a decoder draws the spectrum again
from the tokens. What the encoder learnt serves every task of the image models. The network: `train.models.tokenizer`.

    config          what decides a run
    pretrain        learning without labels
    reconstruct     spectra drawn from their tokens, and how odd each is
    comparison      what that is worth beside simple ways to draw
    baselines       the simple ways
"""
