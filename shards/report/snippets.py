"""How to load a data set, as code to copy: with this program's loader, with webdataset, with DALI."""

from __future__ import annotations

import math

from specshards.render import renderer
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import NPY_HEADER_BYTES, Manifest

#: What stands for the data set's folder.
FOLDER = "path/of/this/folder"


def snippets(manifest: Manifest) -> dict[str, str]:
    """Name of the library -> Python that reads the train split."""
    encoding = ENCODINGS[manifest.config.encoding](renderer(manifest.config.image))
    extension, size = encoding.extension, manifest.config.image.size
    labels = ", ".join(f'"{name}"' for name in manifest.labels)
    names = f"LABELS = [{labels}]"
    gray = encoding.shape is not None and len(encoding.shape) == 2
    if encoding.shape is None:
        wds, what, decode = "decode()", "spectrum", "payload"
        after = "spectra = [flux.parse(np.asarray(payload)) for payload in pictures]  # flux, ivar, wavelength, mask"
        imports = "import numpy as np\n"
        more = "\nfrom specshards.shards.format import flux"
    elif encoding.inflates:  # DALI inflates on a GPU alone: fn.decoders.inflate(block.gpu(), algorithm="LZ4")
        head, shape = len(encoding.head), encoding.shape
        wds, what, decode = "decode()", "frame", "payload"
        after = (
            f"content = [lz4.unpack(np.asarray(payload), {head + math.prod(shape)}) for payload in pictures]\n"
            f"codes = [picture[{head}:].reshape{shape} for picture in content]  # uint8 {' x '.join(map(str, shape))}"
        )
        imports = "import numpy as np\n"
        more = "\nfrom specshards.shards.format import lz4"
    else:
        wds, what = f'decode("{"l8" if gray else "rgb8"}")', "picture"
        decode = f"fn.decoders.image(payload, output_type=types.{'GRAY' if gray else 'RGB'})"
        after = f"pictures.at(0)  # uint8 {' x '.join(map(str, encoding.shape))}"
        imports, more = "", ""
    return {
        "This program": f"""from specshards.shards import loader

with loader.open("{FOLDER}", "train", batch_size=64, seed=0) as batches:
    for batch in batches:  # one epoch
        batch["pixel_values"]  # uint8 (64, 3, {size}, {size}), as a model wants them
        batch["labels"]["z"], batch["key"], batch["valid"]  # NaN = missing; valid is False for what fills up
""",
        "webdataset": f"""from glob import glob

import webdataset as wds

{names}
tars = sorted(glob("{FOLDER}/train/*.tar"))
data = wds.WebDataset(tars, shardshuffle=False).{wds}.to_tuple("__key__", "{extension}", "npy")
for key, {what}, values in data:
    labels = dict(zip(LABELS, values))  # class and survey are numbers; the sidecars beside the tars have their names
""",
        "NVIDIA DALI": f"""from glob import glob

{imports}from nvidia.dali import fn, pipeline_def, types
{more}
tars = sorted(glob("{FOLDER}/train/*.tar"))


@pipeline_def(batch_size=64, num_threads=4, device_id=None)
def pipeline():
    payload, values = fn.readers.webdataset(
        paths=tars, index_paths=[tar[:-3] + "idx" for tar in tars], ext=["{extension}", "npy"],
        missing_component_behavior="error", pad_last_batch=True, name="reader",
    )
    values = fn.reinterpret(values[{NPY_HEADER_BYTES}:], dtype=types.FLOAT64)  # behind the header of the .npy file
    return {decode}, values


pipe = pipeline()
pipe.build()
pictures, values = pipe.run()
{after}
""",
    }  # fmt: skip
