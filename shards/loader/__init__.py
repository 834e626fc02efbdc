"""Batches of pictures, or of spectra, with their labels, from one data set or several, exactly once per epoch.

from specshards.shards import loader

for batch in loader.open("data/lamost/shards/map2d", "train", batch_size=64):
    batch["pixel_values"]     # uint8 (B, 3, S, S)

opening         `open`
loader          `Loader`: from local disk, resumable
options         what `open` was asked for
source          where shards come from: a folder, or an address through the cache
batch           what both give
mixing          several data sets: do they fit, and with what shares
order           which sample stands where in an epoch
deal            which rank works on which batch of it
decode, dali    from bytes to arrays: threads of our own, or NVIDIA DALI
guard           what is read is compared with its checksums
augment         small changes, anew every epoch
paint           arrays or spectra to RGB tensors
pictures        which pictures are asked for; several of the same spectra
stack           spectra side by side, not drawn
"""

from specshards.shards.loader.batch import Batch, SpectraBatch, Stack
from specshards.shards.loader.loader import Loader
from specshards.shards.loader.opening import open
from specshards.shards.loader.options import BACKENDS, ON_ERROR, VIEWS

__all__ = ["BACKENDS", "ON_ERROR", "VIEWS", "Batch", "Loader", "SpectraBatch", "Stack", "open"]
