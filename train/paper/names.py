"""What commands call the tables, pictures and methods; apart, so that help loads nothing that measures them."""

from __future__ import annotations

#: Pictures and other methods in words, in the order of the tables.
PICTURES = {"simple": "simple", "overlap": "overlap", "map2d": "map2d", "mega": "mega (the three together)"}
CLASSICAL = ("svm", "forest")
METHODS = {"svm": "support vectors", "forest": "random forest", "sequence": "1-D transformer"}

#: The tables in their order, and those whose number in the paper is known.
TABLE_KEYS = ("counts", "accuracy", "r2", "sn", "teff", "logg", "feh", "crps", "classifiers", "estimators")
NUMBERS = {"1": "counts", "5": "sn", "6": "teff", "7": "logg", "8": "feh", "9": "crps"}
