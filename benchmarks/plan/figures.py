"""The tables of figures and options in the project's pages, from records and configurations: none is made by hand.

A page holds them between two comments, `<!-- figures NAME -->` and `<!-- end of figures -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path

from specshards.benchmarks.kit import records
from specshards.benchmarks.kit.process import GROUP
from specshards.benchmarks.kit.records import Record
from specshards.benchmarks.kit.tables import figure, markdown
from specshards.benchmarks.plan import plan
from specshards.benchmarks.survey import growth
from specshards.common.arguments import options
from specshards.common.errors import UsageError
from specshards.common.files import write_text
from specshards.render.config import ImageConfig
from specshards.shards.format.manifest import ShardConfig
from specshards.train.config import LoopConfig, RunOptions, TrainConfig
from specshards.train.paper.config import PaperConfig
from specshards.train.tokenizer.config import PretrainConfig

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (
    "README.md", "benchmarks/README.md", "docs/data-sets.md", "docs/images.md", "docs/tokenizer.md",
    "docs/training.md", "docs/spectra-parquet.md", "docs/paper.md",
)  # fmt: skip
SUITE = "2-core-cpu/{}.json".format
SHARDS, MILLION = "2-core-cpu-shards.json", "2-core-cpu-million.json"
STARTUP, SCALE = "2-core-cpu-load-startup.json", "2-core-cpu-scale.json"
SEAL, SEVERAL = "2-core-cpu-seal.json", "2-core-cpu-several.json"
SURVEY = "survey/2-core-cpu-survey-14000000.json"
PUBLISHED, PUBLISHED_DRAWING = "published-pictures.json", "published-drawing.json"
_BLOCK = re.compile(r"(<!-- figures (\w+) -->\n).*?(<!-- end of figures -->)", re.S)
_IMAGES = ("map2d", "simple", "overlap")
Records = dict[tuple[str, str], Record]


@cache
def kept(file: str) -> Records:
    """The records of a file below `benchmarks/results/`, by group and name."""
    return {(r.group, r.name): r for r in records.load(RESULTS / file).records}


def medians(file: str, group: str, names: Iterable[str], scale: float = 1e6) -> str:
    """Medians of some records, with commas; in units of which `scale` make a second."""
    return ", ".join(figure(scale * kept(file)[group, name].median) for name in names)


def summary() -> str:
    """Of the README: a line for each step, with its record."""
    first = [f"loader plain, 256 files: {what}" for what in ("open", "open, first batch")]
    steps = [
        ("draw `map2d`, `simple`, `overlap`, us a spectrum on one core", SUITE("render"), "render",
         [f"{image} codes" for image in _IMAGES], 1e6),
        ("the same as RGB", SUITE("render"), "render", [f"{image} RGB" for image in _IMAGES], 1e6),
        ("matplotlib's figures of them, ms", SUITE("render"), "render",
         [f"{image}, matplotlib figure" for image in _IMAGES], 1e3),
        ("PNG of a `map2d`: ours, OpenCV's, us", SUITE("encode"), "encode map2d", ["png", "OpenCV PNG"], 1e6),
        ("read a LAMOST file (gzipped): ours, plain astropy loop, ms", SUITE("ingest"), "read LAMOST gz",
         ["ours", "astropy loop"], 1e3),
        ("read an SDSS file: ours, plain astropy loop, ms", SUITE("ingest"), "read SDSS",
         ["ours", "astropy loop"], 1e3),
        _memory("ingest", SUITE("ingest")),
        _memory("shards", SHARDS),
        ("whole jobs on two cores: ingest of LAMOST files, of SDSS files; shards of spectra, ms an object", SCALE,
         "ten times larger", ["LAMOST gz, 40,000 files, 2 workers", "SDSS, 40,000 files, 2 workers",
                              "map2d png, 200,000 objects, 2 workers"], 1e3),
        ("a million spectra, Parquet to shards, and `verify --deep`, s", MILLION, "1,000,000 objects, 2 workers",
         ["build", "verify --deep"], 1e6),
        ("14,000,000 rows: the loader opened, up to the first batch, s", SURVEY, "time", first,
         kept(SURVEY)["time", first[0]].about["objects"]),
        ("load a picture (png): dali, plain; webdataset with 2 workers, us", SUITE("load"), "load map2d",
         ["specshards dali, png", "specshards plain, png", "webdataset, RGB PNG, 2 workers"], 1e6),
        ("train `tiny`: from the loader, from cached batches, ms a picture", SUITE("train"), "train on cpu, batch 64",
         ["tiny, loader", "tiny, cached batches"], 1e3),
    ]  # fmt: skip
    cells = [(title, medians(file, group, names, scale), f"`{file}`") for title, file, group, names, scale in steps]
    return markdown(["step", "median", "record"], cells)


def _memory(what: str, file: str) -> tuple[str, str, str, list[str], float]:
    peaks = [r for r in kept(file).values() if r.group == "peak memory"]
    sizes = ", ".join(f"{r.about['objects']:,.0f}" for r in peaks)
    title = f"{what}: memory of the largest process at {sizes} objects, MB"
    return title, file, "peak memory", [r.name for r in peaks], 1


def drawing() -> str:
    """Of docs/images.md: microseconds a picture, and times the two memsets."""
    file = SUITE("render")
    cold, warm = (kept(file)["render", name].median for name in ("memset", "memset, in cache"))
    drawings: list[tuple[str, list[tuple[str, str]]]] = [
        ("memset, the next picture of a batch", [("render", "memset")]),
        ("memset, one picture that stays in the cache", [("render", "memset, in cache")]),
        *((f"{image}: codes, RGB", [("render", f"{image} codes"), ("render", f"{image} RGB")]) for image in _IMAGES),
        ("map2d in a batch, codes, on 1 and 2 cores",
         [("threads, map2d", f"map2d, {n} thread{'s' * (n > 1)}") for n in (1, 2)]),
        (f"matplotlib figure: {', '.join(_IMAGES)}",
         [("render", f"{image}, matplotlib figure") for image in _IMAGES]),
    ]  # fmt: skip
    cells = []
    for title, names in drawings:
        values = [kept(file)[name].median for name in names]
        cells.append([title, *(", ".join(figure(v / unit) for v in values) for unit in (1e-6, cold, warm))])
    return markdown(["drawing", "us", "x memset", "x memset, in cache"], cells)


def published() -> str:
    """Of docs/images.md: how like the figures of the published code our pictures are."""
    rows: dict[tuple[str, str], list[str]] = {}
    for (group, name), record in kept(PUBLISHED).items():
        image, survey = group.split(", ")
        row = rows.setdefault((image, name), [f"`{image}`, `{name}`"])
        numbers = record.median, min(record.values), record.about["ssim_median"]
        row += [f"{survey.upper()}, {len(record.values)}", *(f"{number:.4f}" for number in numbers)]
    heads = ["picture", *["survey, spectra", "median correlation", "least", "median SSIM"] * 2]
    return markdown(heads, rows.values())


def drawing_published() -> str:
    """Of docs/images.md: what a published picture costs beside the default one."""
    rows = []
    for image in _IMAGES:
        for what in ("codes", "RGB"):
            names = [f"{image}, {name}, {what}" for name in ("default", "paper")]
            usual, paper = (kept(PUBLISHED_DRAWING)["as published", name].median for name in names)
            rows.append(
                (f"{image}: {what}", *(figure(1e6 * value) for value in (usual, paper)), figure(paper / usual))
            )
    return markdown(["drawing", "default, us", "`paper`, us", "ratio"], rows)


def stage() -> str:
    """Of docs/data-sets.md: microseconds a spectrum of every stage of a job."""
    stages = [r for r in kept(SHARDS).values() if r.group == "stage"]
    return markdown(["stage, on one core", "us a spectrum"], [(r.name, figure(1e6 * r.median)) for r in stages])


def writing() -> str:
    """Of docs/data-sets.md: the largest whole jobs, beside one core of the reference road."""
    jobs = [r for r in kept(SHARDS).values() if r.group == GROUP]
    most = max(r.about["objects"] for r in jobs)
    cells = []
    for r in jobs:
        if r.about["objects"] < most:
            continue
        image = r.name.partition(" ")[0]
        times = kept(SHARDS)["reference", image].median / r.median
        values = (1 / r.median, times, times / r.about["workers"], r.bytes or 0.0)
        cells.append((r.name, *(f"{value:,.0f}" for value in values)))
    return markdown(["job", "objects/s", "times the reference", "times it, a core", "bytes an object"], cells)


def million() -> str:
    """Of docs/data-sets.md: what the large job says."""
    return "\n".join(f"- {r.name}: {r.note}" for r in kept(MILLION).values())


def reading() -> str:
    """Of docs/data-sets.md: every loader in its two ways."""
    ours = [(f"specshards {name}, dali / plain", [f"specshards {backend}, {name}" for backend in ("dali", "plain")])
            for name in ("png", "pnm", "jpeg", "flux")]  # fmt: skip
    others = [(f"{name}, 2 / 0 workers", [f"{name}, {count} workers" for count in (2, 0)]) for name in (
        "webdataset, RGB PNG", "webdataset, RGB JPEG", "loose files, RGB PNG", "loose files, RGB JPEG",
        "litdata, RGB PNG", "litdata, RGB JPEG", "litdata, raw RGB", "MosaicML streaming, RGB PNG",
        "MosaicML streaming, RGB JPEG", "MosaicML streaming, raw RGB")]  # fmt: skip
    cells = []
    for title, names in [*ours, *others]:
        both = [kept(SUITE("load"))["load map2d", name] for name in names]
        values = " / ".join(figure(1e6 * r.median) if r.values else r.note for r in both)
        cells.append((title, values, f"{both[0].bytes:,.0f}" if both[0].bytes else ""))
    return markdown(["loader", "us an image", "bytes a sample"], cells)


def startup() -> str:
    """Of docs/data-sets.md: opening a million samples."""
    cells = []
    for backend in ("dali", "plain"):
        opened, first = (kept(STARTUP)[f"start-up of a million samples, {what}", backend] for what in (
            "open", "open and first batch"))  # fmt: skip
        memory = (first.bytes or 0.0) / 1e6
        cells.append((backend, *(figure(value) for value in (1e3 * opened.median, 1e3 * first.median, memory))))
    return markdown(["a million samples", "open, ms", "up to the first batch, ms", "memory of its own, MB"], cells)


def sealing() -> str:
    """Of docs/spectra-parquet.md: what checksums cost."""
    cells = []
    for step in ("ingest", "shards"):
        with_seal, without = (kept(SEAL)[f"seal: {step}", name].median for name in ("with a seal", "without"))
        cells.append(
            [step, figure(1e6 * with_seal), figure(1e6 * without), f"{100 * (with_seal / without - 1):.1f}%"]
        )
    return markdown(["CPU time, us a spectrum", "sealed", "without", "cost"], cells)


def several() -> str:
    """Of docs/training.md: what a picture costs, of one of each spectrum and of several."""
    names = list(dict.fromkeys(name.partition(", ")[2] for _, name in kept(SEVERAL)))
    (group,) = {group for group, _ in kept(SEVERAL)}
    cells = [
        (
            f"`{name}`" if ":" in name else name,
            *(medians(SEVERAL, group, [f"{b}, {name}"]) for b in ("dali", "plain")),
        )
        for name in names
    ]
    return markdown(["CPU time, us a picture, one thread", "dali", "plain"], cells)


def planned() -> str:
    """Of benchmarks/README.md: what `specshards bench plan` prints of the kept records."""
    return plan.planned(14e6, "rtx4090", 16, "nvme", "lamost,sdss", "png", 30, plan.KEPT, "0.6,0.2,0.2")[0]


def survey() -> str:
    """Of benchmarks/README.md: the stages of surveys of several sizes."""
    return growth.short(growth.read(RESULTS / "survey", "2-core-cpu-"))


def scaled() -> str:
    """Of benchmarks/README.md: jobs ten times larger, beside the plan."""
    return "\n".join(f"- {r.name}: {r.note}" for r in kept(SCALE).values())


def explained(*kinds: type, but: type | None = None) -> str:
    """The options that fields of configurations are, but for those of another one that they build on as they are."""
    inherited = [] if but is None else [(one.field, one.default) for one in options(but)]
    own = [one for kind in kinds for one in options(kind) if (one.field, one.default) not in inherited]
    return markdown(["option", "default", ""], [
        (f"`{one.flag}`", f"`{one.shown}`" if one.shown else "", one.help.replace("|", "\\|")) for one in own
    ])  # fmt: skip


TABLES: Mapping[str, Callable[[], str]] = {
    **{
        function.__name__: function
        for function in (
            summary,
            drawing,
            published,
            drawing_published,
            stage,
            writing,
            million,
            reading,
            startup,
            sealing,
            several,
            planned,
            survey,
            scaled,
        )
    },
    "picture": partial(explained, ImageConfig),
    "data_set": partial(explained, ShardConfig),
    "loop": partial(explained, LoopConfig, RunOptions),
    "labels": partial(explained, TrainConfig, but=LoopConfig),
    "pretraining": partial(explained, PretrainConfig, but=LoopConfig),
    "paper": partial(explained, PaperConfig, but=TrainConfig),
}


def renewed(text: str) -> str:
    """A page with its tables as the records have them.

    Raises:
        UsageError: it asks for a table that there is not.
    """

    def block(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise UsageError(f"no table {match[2]} of figures; there are {', '.join(TABLES)}")
        return f"{match[1]}{TABLES[match[2]]()}\n{match[3]}"

    return _BLOCK.sub(block, text)


def figures() -> None:
    """Write the tables of the project's pages anew: figures from benchmarks/results, options from configurations.

    Raises:
        UsageError: the program runs without its checkout, where the pages are.
    """
    for page in PAGES:
        path = ROOT / page
        if not path.exists():
            raise UsageError(f"{path}: no such page; run this in a checkout of specshards")
        old = path.read_text(encoding="utf-8")
        new = renewed(old)
        if new != old:
            write_text(path, new)
        print(f"{page}: {'renewed' if new != old else 'as it was'}")
