"""The parameters of any model: which are its head, which learn, and how fast."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

#: Names of biases and norms in the models of transformers.
_NOT_DECAYED = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.|_)norm(?:$|\.)")


def freeze(model: nn.Module) -> None:
    """Let only the last layer learn."""
    head = {id(parameter) for parameter in head_parameters(model)}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in head)


def parameter_groups(
    model: nn.Module, weight_decay: float, layer_decay: float, decay: str = "matrices"
) -> list[dict[str, Any]]:
    """Optimiser groups: weight decay for some; deeper layers learn slower.

    `decay` is `matrices`: none on vectors and embeddings of positions; or `trainer`: none on biases and norms, as
    `Trainer.get_decay_parameter_names` of transformers has it. Each group has `lr_scale`: the share of the learning
    rate that it gets. The head has 1, the last layer `layer_decay`, the embeddings the least.
    """
    depths = {name: _depth(name) for name, _ in model.named_parameters()}
    layers = max(depths.values())
    top = layers + 1
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    head = {id(parameter) for parameter in head_parameters(model)}
    norms = {
        id(parameter) for part in model.modules() if isinstance(part, nn.LayerNorm) for parameter in part.parameters()
    }
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        depth = top if id(parameter) in head else layers if depths[name] < 0 else depths[name]
        if decay == "trainer":
            decays = id(parameter) not in norms and not _NOT_DECAYED.search(name.lower())
        else:
            decays = parameter.ndim > 1 and not re.search(r"(position|pos)_embed|cls_token|mask_token", name)
        group = groups.setdefault(
            (depth, decays),
            {"params": [], "weight_decay": weight_decay if decays else 0.0, "lr_scale": layer_decay ** (top - depth)},
        )
        group["params"].append(parameter)
    return list(groups.values())


def _depth(name: str) -> int:
    """0 for embeddings, 1 + i for layer i, -1 for what stands outside the layers (the last norm)."""
    found = re.search(r"\.(?:layers?|blocks?)\.(\d+)\.", name)
    return 1 + int(found.group(1)) if found else 0 if "embed" in name else -1


def head_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters outside the child named `base_model_prefix`: the classifier, under whatever name.

    In a model that does not say what its base is, those of the last child that has any.
    """
    network: Any = getattr(model, "network", model)
    prefix = getattr(network, "base_model_prefix", None)
    children = dict(network.named_children())
    if prefix not in children:
        *base, _ = [name for name, child in children.items() if any(True for _ in child.parameters())]
        children = {name: child for name, child in children.items() if name not in base}
    for name, child in children.items():
        if name != prefix:
            yield from child.parameters()
