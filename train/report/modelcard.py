"""The card of a model for the model hub: what it learnt from what, how good it is beside what, and where it ends."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from specshards.common.errors import UsageError
from specshards.train.network import open_model
from specshards.train.report.figures import figure_file
from specshards.train.report.tables import counted, few_groups, labelled, tables
from specshards.train.run import METRICS, Card, leaks, read_metrics
from specshards.train.tasks.text import Rows, metric_name, number

#: Metrics whose names on the hub differ from ours.
_HUB_NAMES = {"macro_f1": "f1", "r2": "r_squared"}
_MOCK = (
    "**MOCK data.** A simulator made the spectra behind this model; its answers and its numbers say nothing of real "
    "ones."
)


def modelcard(run: Path, name: str | None = None) -> str:
    """`README.md` of a model on the hub: YAML front matter and text.

    The numbers are those of the test split where it has been scored, else those of validation, and it says which.

    Args:
        name: of the model in the hub's metadata; the folder's by default.

    Raises:
        UsageError: no such model, or no metrics of it. JobError: damaged.
    """
    card, _ = open_model(run)
    content = metrics_of(run, card)
    split = _split(content)
    front = _front(card, content, split, name or run.resolve().name).to_yaml()
    parts = [
        _head(card, content),
        _learnt(card),
        *_worth(run, card, content, split),
        _use(card),
        _limits(card, content),
    ]
    return str(ModelCard(f"---\n{front}\n---\n\n" + "\n\n".join(parts) + "\n"))


def metrics_of(run: Path, card: Card) -> dict[str, Any]:
    """`metrics.json` of a run, if it is of the run's model.

    Raises:
        UsageError: none there, without a scored split, or of other weights. JobError: damaged.
    """
    path = run / METRICS
    if not path.is_file():
        raise UsageError(f"{run}: no {METRICS} there; run `make evaluate MODEL={run}` first")
    content = read_metrics(path)
    if content["model"] != card.model or not content["splits"]:
        raise UsageError(f"{path}: not of the model that is there now; run `make evaluate MODEL={run}` first")
    return content


def public_name(backbone: str) -> str:
    """A backbone's name on the hub; of a folder its last name alone, because the rest is about this machine."""
    on_hub = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", backbone) and not Path(backbone).is_dir()
    return backbone if on_hub else Path(backbone).name


def _split(content: Mapping[str, Any]) -> str:
    return next(name for name in ("test", "val", *content["splits"]) if name in content["splits"])


def _front(card: Card, content: Mapping[str, Any], split: str, name: str) -> ModelCardData:
    """The hub's metadata; `model-index` has a result for every task, with counts and baselines beside its metrics."""
    surveys = _surveys(card.data)
    backbone = public_name(card.config.backbone)
    results = list(_results(card, content, split))
    return ModelCardData(
        license="mit", pipeline_tag="image-classification", library_name="transformers",
        tags=["astronomy", "spectroscopy", *([] if not content["mock"] else ["mock-data"]),
              *(task.name for task in card.tasks)],
        datasets=surveys, base_model=backbone if "/" in backbone else None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=_plain(name), eval_results=results or None,
    )  # fmt: skip


def _results(card: Card, content: Mapping[str, Any], split: str) -> Iterator[EvalResult]:
    data = content["data"]
    name = f"{', '.join(_surveys(data))}{' (MOCK data)' if content['mock'] else ''}"
    for task in card.tasks:
        scores = content["splits"][split].get(task.name)
        if not scores or not scores["labelled"]:
            continue
        for metric, value in scores["all"].items():
            if metric == "count" or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            baselines = {b: v[metric] for b, v in scores["baselines"].items() if v.get(metric) is not None}
            yield EvalResult(
                task_type=task.hub_type,
                task_name=task.name, dataset_type="specshards", dataset_name=name, dataset_config=task.name,
                dataset_split=split, dataset_revision=" ".join(record["fingerprint"][:12] for record in data),
                dataset_args={"objects": scores["objects"], "labelled": scores["labelled"]},
                metric_type=_HUB_NAMES.get(metric, metric), metric_name=metric_name(metric), metric_value=value,
                metric_args={"baselines": baselines} if baselines else None,
            )  # fmt: skip


def _head(card: Card, content: Mapping[str, Any]) -> str:
    tasks = _plain(", ".join(task.name for task in card.tasks))
    images = card.pictures
    kinds = " and ".join(f"`{image.image}`" for image in images)
    pictures = f"as a picture ({kinds}" if len(images) == 1 else f"as {len(images)} pictures ({kinds}"
    image = images[0]
    mock = f"\n\n{_MOCK}" if content["mock"] else ""
    backbone = _plain(public_name(card.config.backbone))
    return (
        f"# {tasks} from pictures of spectra{mock}\n\nA vision transformer ({backbone}) that "
        f"reads an astronomical spectrum {pictures}, {image.size} × {image.size} pixels, "
        f"{image.window[0]:g} to {image.window[1]:g} Å, {image.frame} frame), trained with specshards."
    )


def _learnt(card: Card) -> str:
    data = "\n".join(
        f"- {_plain(', '.join(d['surveys']))}: shards `{_plain(Path(d['folder']).name)}`, fingerprint "
        f"`{d['fingerprint'][:12]}`"
        for d in card.data
    )
    counts = "\n".join(f"- {_plain(line)}" for line in (*labelled(card), *few_groups(card)))
    drawn = "\n\n".join(f"{name}: {_plain(_settings(image))}." for name, image in _pictures(card).items())
    outputs, first = [["outputs", "task", "they are"]], 0
    for task in card.tasks:
        last = first + task.head_size - 1
        outputs.append([f"{first} to {last}" if last > first else f"{first}", task.name, task.meaning()])
        first = last + 1
    epoch = (card.best or {}).get("epoch")
    return (
        f"## What it learnt\n\n{data}\n\n{counts}\n\nAn object without a label has no part in that label's loss. "
        f"Weights `{card.model[:12]}`, best epoch {epoch} on validation.\n\n{_table(outputs)}\n\n"
        f"{drawn}"
    )


def _pictures(card: Card) -> dict[str, dict[str, Any]]:
    """What each picture of a model is called in a sentence, and its settings."""
    if not card.several:
        return {"The picture": card.image}
    return {f"Picture {name}": image for name, image in zip(card.several, card.images, strict=True)}


def _settings(image: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in image.items())


def _worth(run: Path, card: Card, content: Mapping[str, Any], split: str) -> Iterator[str]:
    """Tables of one split: model beside baselines, by survey, class and S/N; a figure where there is one."""
    how = (
        "The test split was not used to choose anything."
        if split == "test"
        else "The best epoch was chosen on this split, so these numbers flatter the model: the test split is not "
        "scored."
    )
    where = ""
    if [d["fingerprint"] for d in content["data"]] != [d["fingerprint"] for d in card.data]:
        where = f" Scored on other data than it learnt from: {_plain(', '.join(_surveys(content['data'])))}."
    yield f"## What it is worth: {split} split\n\n{how}{where} Behind a number in brackets: its 95% interval."
    for task in card.tasks:
        scores = content["splits"][split].get(task.name)
        if not scores:
            continue
        yield f"### {_plain(task.name)}\n\n{_plain(counted(scores, task))}"
        for rows in tables(scores, task):
            yield _table(rows)
        figure = figure_file(split, task.name)
        if (run / figure).is_file():
            yield f"![{_plain(task.name)}, {split}]({quote(figure)})"


def _use(card: Card) -> str:
    several = f"\n\nThe answer to a spectrum is the mean of the logits over its {len(card.images)} pictures."
    return f"{_HOW_TO}{several if card.several else ''}"


_HOW_TO = """## How to use it

From a checkout of specshards, with this folder beside it:

```python
from specshards.train.use.predict import Predictor
model = Predictor.open("this-folder")
table = model("spectra/*.fits")     # pyarrow.Table: one row an object, uncertainties, quarantine
```

With transformers alone, for a picture `rgb` (uint8, height x width x 3) drawn as above by `render.renderer`:

```python
from transformers import AutoImageProcessor, AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained("this-folder")
pixels = AutoImageProcessor.from_pretrained("this-folder", backend="pil")(rgb, return_tensors="pt")
logits = model(**pixels).logits     # the table above says which outputs are what; specshards.json has the rest
```"""


def _limits(card: Card, content: Mapping[str, Any]) -> str:
    lines = [
        f"It knows spectra of {_plain(', '.join(_surveys(card.data)))} alone. Another instrument, resolution or "
        "reduction was not tested and can fail without a sign: every picture gets an answer.",
        "A number is worth something where it beats the constant of the survey; a model that only tells surveys "
        "apart does not.",
    ]
    for task in card.tasks:
        scores = next((s[task.name] for s in content["splits"].values() if s.get(task.name)), None)
        lines.append(_plain(task.limits()))
        if scores is not None:
            bins = ", ".join(f"{name}: {number(v['count'])}" for name, v in scores["by_sn"].items())
            lines.append(
                f"{_plain(task.name)}: objects that were scored, by median S/N per pixel: {bins or 'S/N unknown'}."
            )
    unused = [name for name in ("val", "test") if name not in content["splits"]]
    if unused:
        lines.append(f"Not scored: {', '.join(unused)}.")
    if not any({"mask", "snr", "significance"} & set(image.channels) for image in card.pictures):
        drawn = any(image.bad_pixels == "draw" for image in card.pictures)
        bad = "drawn like others" if drawn else "drawn over by a straight line"
        lines.append(f"Bad pixels are {bad}, and errors are not shown to it.")
    lines += [f"{_plain(line)}." for line in leaks(content["data"])]
    if content["mock"]:
        lines.append("MOCK data: nothing here was tested on a real spectrum.")
    return "## Where it ends\n\n" + "\n".join(f"- {line}" for line in lines)


def _surveys(data: Any) -> list[str]:
    return list(dict.fromkeys(survey for record in data for survey in record["surveys"]))


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _plain(text: str) -> str:
    """Text that Markdown and HTML show as it is, on one line."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("`", "'")


def _table(rows: Rows) -> str:
    lines = ["| " + " | ".join(map(_plain, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
