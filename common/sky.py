"""Which objects lie close together on the sky: repeated visits, and one star in two surveys."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Positions of one object differ by less: catalogues by some tenths of an arcsecond, plugged fibres by up to two.
LINK_ARCSEC = 2.0
#: Objects in one tree, besides those of the next band within reach: what bounds the memory.
_BAND = 1 << 18


def close_pairs(ra: Floats, dec: Floats, radius_arcsec: float) -> tuple[Indices, Indices]:
    """Every pair of objects at most `radius_arcsec` apart: places `i < j`, each pair once, sorted.

    It takes time and memory as objects and pairs do: a thousand objects at one place are half a million pairs.

    Args:
        ra, dec: `(n,)`, degrees. Objects whose position is not finite are close to nothing.
        radius_arcsec: positive.
    """
    pairs = np.concatenate([np.empty((0, 2), np.int64), *iter_close_pairs(ra, dec, radius_arcsec)])
    i, j = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].T
    return i, j


def iter_close_pairs(ra: Floats, dec: Floats, radius_arcsec: float) -> Iterator[Indices]:
    """The pairs of `close_pairs` band by band in declination, int64 `(m, 2)` each, for one who only counts them."""
    from scipy.spatial import cKDTree

    chord = 2.0 * np.sin(np.radians(min(radius_arcsec / 3600.0, 180.0)) / 2.0)
    order = np.argsort(dec, kind="stable")
    order = order[np.isfinite(ra[order]) & np.isfinite(dec[order])]
    south = dec[order]
    for start in range(0, len(order), _BAND):
        end = min(start + _BAND, len(order))
        # Objects are never nearer to each other than their declinations; a little more, for rounding.
        reach = np.searchsorted(south, south[end - 1] + radius_arcsec / 3600.0 + 1e-9, "right")
        members = order[start:reach]
        pairs = cKDTree(_vectors(ra[members], dec[members])).query_pairs(chord, output_type="ndarray")
        yield np.sort(members[pairs[pairs.min(axis=1) < end - start]], axis=1)


def groups(
    ra: Floats, dec: Floats, radius_arcsec: float = LINK_ARCSEC, links: tuple[Indices, Indices] | None = None
) -> Indices:
    """For every object the lowest place in its group: objects each within the radius of another, in a chain.

    Args:
        ra, dec: `(n,)`, degrees. An object whose position is not finite is a group of its own.
        links: further pairs of places that belong together.

    Returns:
        int64 `(n,)`.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    i, j = close_pairs(ra, dec, radius_arcsec)
    if links is not None:
        i, j = np.concatenate([i, links[0]]), np.concatenate([j, links[1]])
    graph = coo_array((np.ones(len(i), np.bool_), (i, j)), shape=(len(ra), len(ra)))
    _, group = connected_components(graph, directed=False)
    return np.unique(group, return_index=True)[1][group]


def _vectors(ra: Floats, dec: Floats) -> Floats:
    """Unit vectors, `(n, 3)`."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
