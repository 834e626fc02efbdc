"""What a data set says of itself: the dataset card, the table of counts, and timm's `_info.json`."""

from __future__ import annotations

import json
from pathlib import Path

from specshards.common.spectrum import LABELS
from specshards.render import renderer
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import MANIFEST, SPLITS, Manifest
from specshards.shards.write.split import FINEST

#: For timm's reader.
INFO = "_info.json"
#: Further columns that a line has, at most.
_MOST_NAMED = 30


def counts_table(manifest: Manifest) -> str:
    """Counts by split and class, as plain text."""
    names = [*manifest.classes, "unlabelled"]
    lines = [f"{'split':<8}" + "".join(f"{name:>12}" for name in (*names, "total"))]
    for split in SPLITS:
        counts = manifest.class_counts(split)
        numbers = [counts.get(name, 0) for name in names]
        lines.append(f"{split:<8}" + "".join(f"{n:>12,}" for n in (*numbers, manifest.samples(split))))
    return "\n".join(lines)


def summary(manifest: Manifest, out: Path) -> str:
    """What a finished job says: counts, the account, sizes, and where it all is."""
    total = sum(shard.bytes for shard in manifest.shards)
    return (
        f"{counts_table(manifest)}\n"
        f"{manifest.objects:,} spectra = {manifest.samples():,} samples + {manifest.quarantined:,} quarantined"
        f"{left_out(manifest)}; {len(manifest.shards)} shards, {total / 1e6:.1f} MB, "
        f"{total / max(1, manifest.samples()):,.0f} bytes a sample\n"
        f"{further(manifest)}"
        f"{at_rest(manifest) + chr(10) if manifest.at_rest else ''}"
        f"{line_spread(manifest) + chr(10) if manifest.config.lsf else ''}"
        f"{'MOCK data: ' if manifest.mock else ''}{out}/{MANIFEST}"
    )


def at_rest(manifest: Manifest) -> str:
    """What is said of samples whose files are in the rest frame; empty without any."""
    if not manifest.at_rest:
        return ""
    moved = (
        "moved back by their velocity or redshift where one is known, else drawn as they are"
        if manifest.config.image.frame == "observed"
        else "drawn as they are"
    )
    return (
        f"{manifest.at_rest:,} of {manifest.samples():,} samples are of files in the rest frame: {moved}; "
        "TASK=redshift refuses them"
    )


def line_spread(manifest: Manifest) -> str:
    """How many samples have a line-spread function, where it was asked for; else empty."""
    if not manifest.config.lsf:
        return ""
    known = f"{manifest.with_lsf:,}" if manifest.with_lsf else "none"
    return f"lsf: the line-spread function is known of {known} of {manifest.samples():,} samples"


def further(manifest: Manifest) -> str:
    """The further columns with their units, and that no sample has a class where that is so; empty without either."""
    lines = []
    if manifest.samples() and not any(
        manifest.class_counts(s).get(name) for s in SPLITS for name in manifest.classes
    ):
        lines.append("no sample has a class: unlabelled means that alone")
    if manifest.further:
        words = [f"{name} ({said['unit']})" if said["unit"] else name for name, said in manifest.further.items()]
        more = f" and {len(words) - _MOST_NAMED:,} more" if len(words) > _MOST_NAMED else ""
        lines.append(f"further columns, each of which TASK= takes: {', '.join(words[:_MOST_NAMED])}{more}")
    return "".join(f"{line}\n" for line in lines)


def left_out(manifest: Manifest) -> str:
    """How many objects were left out, and why; empty without any."""
    if not manifest.left_out:
        return ""
    is_filtered = manifest.config.best_of is None or any(origin.get("where") for origin in manifest.made_from)
    whys = ["other visits (--best-of object)"] if manifest.config.best_of is not None else []
    whys += ["by a filter"] if is_filtered else []
    return f" + {manifest.left_out:,} left out: {' and '.join(whys)}"


def split_by(manifest: Manifest) -> str:
    """How the samples are split, and what that keeps together, or tears apart."""
    config, counts = manifest.config, manifest.split_counts
    if config.group is not None and counts is not None:
        return counts.by_value(config.group) + (f"; {manifest.leaks.what}" if manifest.leaks is not None else "")
    if manifest.leaks is not None:
        return manifest.leaks.text
    if counts is not None and counts.by_id == manifest.samples():
        return f"split by object_id: {counts.by_position(counts.by_id)}"
    without = "" if counts is None else f"; {counts.by_position(manifest.samples())}"
    if config.split_by == "object":
        return f"split by object (HEALPix nside {FINEST}, 13 arcseconds): visits of one object fall together{without}"
    cell = f"split by cell of the sky, HEALPix nside {manifest.config.split_nside}"
    return f"{cell}: visits of one object, and one star in two surveys, fall together{without}"


def timm_info(manifest: Manifest) -> str:
    """`_info.json`: file names and lengths per split, as timm's webdataset reader wants them."""
    splits = {}
    for split in SPLITS:
        shards = manifest.split(split)
        splits[split] = {
            "name": split,
            "num_samples": manifest.samples(split),
            "filenames": [shard.name for shard in shards],
            "shard_lengths": [shard.samples for shard in shards],
        }
    return json.dumps({"splits": splits}, indent=1, sort_keys=True) + "\n"


def dataset_card(manifest: Manifest) -> str:
    """`README.md` of a data set: what it holds, how it was made, how to load it."""
    config = manifest.config
    encoding = ENCODINGS[config.encoding](renderer(config.image))
    extension = encoding.extension
    if encoding.shape is None:
        what, member = "", "the spectrum, drawn while loading"
    else:
        what, member = f" as {config.image.image} images", "the picture"
    account = (
        f"{manifest.objects:,} spectra = {manifest.samples():,} samples + {manifest.quarantined:,} in "
        f"`quarantine.parquet`{left_out(manifest)}"
    )
    how = split_by(manifest)
    rest = "".join(f"\n{line}.\n" for line in (at_rest(manifest), line_spread(manifest)) if line)
    mock = "**This is mock data**, made by a simulator; no telescope saw these objects.\n\n" if manifest.mock else ""
    return f"""# {", ".join(manifest.surveys)}: {manifest.samples():,} spectra{what}

{mock}Format version {manifest.format_version}, written by specshards {manifest.program_version}.
{account}

```
{counts_table(manifest)}
```

{how[0].upper()}{how[1:]}.
{rest}
A sample is `<key>.{extension}` ({member}) and `<key>.npy` (float64 labels, NaN = missing), in this order:
`{"`, `".join(LABELS)}`; `class` counts in {list(manifest.classes)}, `survey` in {list(manifest.surveys)}.
The Parquet file beside each tar has the same labels, ids and positions, one row a sample.

```python
from specshards.shards import loader
for batch in loader.open("this/folder", "train", batch_size=64): ...     # expanded RGB, labels by name

import webdataset as wds
wds.WebDataset("train/train-000000.tar", shardshuffle=False).decode("rgb8").to_tuple("{extension}", "npy")
```

Picture and split configuration:

```json
{json.dumps(config.to_dict(), indent=1, sort_keys=True)}
```
"""
