"""The image types by name: each registers beside its code, and says there all that others may ask of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from specshards.common.registry import Registry

if TYPE_CHECKING:
    from specshards.render.base import Renderer

RENDERERS: Registry[type[Renderer]] = Registry(
    "IMAGE", "specshards.renderers", [f"specshards.render.{name}" for name in ("simple", "overlap", "map2d")]
)


def having(attribute: str, value: str) -> str:
    """Names of the image types whose `limits`, `options` or `presets` have `value`, for a message."""
    return ", ".join(name for name, kind in RENDERERS.items() if value in getattr(kind, attribute))
