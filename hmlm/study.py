"""Planned studies: a table of groups, rows and predictors before there are any outcomes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import special

from hmlm.errors import HmlmError, listed, suggest

Kind = str | Callable[[np.random.Generator, int], Any]
_KINDS = ("normal", "binary", "time")


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Study:
    """A plan of a study, from which tables are made.

    Attributes
    ----------
    groups : mapping of str to int
        Number of levels of each grouping factor; each factor after the first counts its levels
        within a level of the one before.
    per_group : int
        Rows of a group of the last factor, or their mean where `sizes` is "poisson".
    predictors : mapping of str to str or callable
        Kind of each predictor; see `make_study`.
    sizes : {"balanced", "poisson"}
        Whether all groups have the same number of rows.
    """

    groups: Mapping[str, int]
    per_group: int
    predictors: Mapping[str, Kind]
    sizes: Literal["balanced", "poisson"] = "balanced"

    def __post_init__(self) -> None:
        """Check the plan."""
        for name, size in {**self.groups, "per_group": self.per_group}.items():
            least = 2 if name == next(iter(self.groups), None) else 1
            whole: Any = size
            if isinstance(whole, bool) or not isinstance(whole, (int, np.integer)) or size < least:
                raise HmlmError(
                    f"the number of '{name}' must be a whole number, at least {least}, not "
                    f"{size!r:.40}."
                )
        if self.sizes not in ("balanced", "poisson"):
            raise HmlmError(f"sizes is 'balanced' or 'poisson', not {self.sizes!r:.40}.")
        if twice := set(self.groups) & set(self.predictors):
            raise HmlmError(f"{listed(sorted(twice))} is both a group and a predictor.")
        for name, kind in self.predictors.items():
            if not callable(kind):
                _read_kind(name, kind, tuple(self.groups))

    def vary(self, **changes: int) -> Study:
        """Return the study with other numbers of groups or of rows per group.

        Examples
        --------
        >>> from hmlm.study import make_study
        >>> study = make_study(groups={"school": 4}, per_group=3)
        >>> len(study.vary(school=10).make_frame(1)), len(study.vary(per_group=5).make_frame(1))
        (30, 20)
        """
        known = [*self.groups, "per_group"]
        for name in changes:
            if name not in known:
                raise HmlmError(
                    f"the study has no '{name}' to vary.{suggest(name, known)} It has "
                    f"{listed(known)}."
                )
        rows = changes.pop("per_group", self.per_group)
        return replace(self, groups={**self.groups, **changes}, per_group=rows)

    def make_frame(self, random_seed: Any = None) -> pd.DataFrame:
        """Return one table of the study: a column for each grouping factor and each predictor.

        Parameters
        ----------
        random_seed : int or numpy.random.SeedSequence, optional
            Seed of the order of values, and of sizes that are not balanced.
        """
        rng = np.random.default_rng(random_seed)
        codes: dict[str, np.ndarray] = {}
        labels: dict[str, np.ndarray] = {}
        total, parent = 1, None
        for name, number in self.groups.items():
            inner = np.tile(np.arange(number), total)
            for above in codes:
                codes[above] = np.repeat(codes[above], number)
            total *= number
            codes[name] = np.arange(total)
            width = len(str(number))
            own = np.array([f"{k + 1:0{width}d}" for k in inner], dtype=object)
            if parent is None:
                labels[name] = np.array([f"{name}{t}" for t in own], dtype=object)
            else:
                lead = labels[parent][codes[parent]]
                labels[name] = np.array(
                    [f"{a}.{b}" for a, b in zip(lead, own, strict=True)], dtype=object
                )
            parent = name
        size = np.full(total, self.per_group)
        if self.sizes == "poisson":
            size = np.maximum(rng.poisson(self.per_group, total), 1)
        finest = np.repeat(np.arange(total), size)
        index = {name: code[finest] for name, code in codes.items()}
        columns: dict[str, Any] = {n: labels[n].astype(str)[i] for n, i in index.items()}
        for name, kind in self.predictors.items():
            columns[name] = self._values(name, kind, index, finest, rng)
        return pd.DataFrame(columns)

    def _values(
        self,
        name: str,
        kind: Kind,
        index: Mapping[str, np.ndarray],
        finest: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        n = len(finest)
        if callable(kind):
            made = np.asarray(kind(rng, n))
            if made.shape != (n,):
                raise HmlmError(
                    f"the function of predictor '{name}' returned shape {made.shape}; the study "
                    f"has {n:,} rows, and it must return as many values."
                )
            return made
        what, how, group = _read_kind(name, kind, tuple(self.groups))
        if what == "time":
            starts = np.flatnonzero(np.diff(finest, prepend=-1))
            return np.arange(n) - np.repeat(starts, np.diff(np.append(starts, n)))
        if how == "by":
            return _spread(what, int(index[group].max()) + 1, rng)[index[group]]
        if what == "normal":
            return _spread(what, n, rng)
        within = index[group] if group else finest
        order = rng.permutation(n)
        order = order[np.argsort(within[order], kind="stable")]
        place = np.empty(n, dtype=np.int64)
        # Units are treated in turn, so that each group has as many with as without.
        place[order] = np.arange(n)
        first = np.zeros(int(within.max()) + 1, dtype=np.int64)
        first[1:] = np.cumsum(np.bincount(within))[:-1]
        return (place - first[within] + within) % 2


def _spread(what: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n values in random order: normal quantiles, or as many zeros as ones."""
    if what == "normal":
        values = special.ndtri((np.arange(n) + 0.5) / n)
        return np.asarray(rng.permutation(values / values.std(ddof=1) if n > 1 else values))
    return rng.permutation(np.arange(n) % 2)


def _read_kind(name: str, kind: Any, groups: tuple[str, ...]) -> tuple[str, str, str]:
    """Return the kind of a predictor, how it goes with a group ("by", "within" or ""), and it."""
    parts = re.fullmatch(r"(\w+)(?:\s+(by|within)\s+(.+))?", str(kind).strip())
    if not parts or parts[1] not in _KINDS:
        raise HmlmError(
            f"predictor '{name}' is {kind!r:.60}; it must be 'normal', 'binary' or 'time', as "
            "'binary by school' (one value a school) or 'binary within school', or a function of "
            "a generator and the number of rows."
        )
    what, how, group = parts[1], parts[2] or "", parts[3] or ""
    if group and group not in groups:
        raise HmlmError(
            f"predictor '{name}' goes by '{group}', which the study does not have."
            f"{suggest(group, groups)} It has {listed(groups) or 'no groups'}."
        )
    if how == "within" and what != "binary":
        raise HmlmError(f"predictor '{name}': only a binary one is spread within groups.")
    if what == "time" and how:
        raise HmlmError(f"predictor '{name}': time counts the rows of each group; write 'time'.")
    return what, how, group


def make_study(
    groups: Mapping[str, int] | None = None,
    per_group: int = 1,
    predictors: Mapping[str, Kind] | None = None,
    sizes: Literal["balanced", "poisson"] = "balanced",
) -> Study:
    """Plan a study.

    Parameters
    ----------
    groups : mapping of str to int, optional
        Number of levels of each grouping factor. Factors are nested in the order given:
        ``{"school": 20, "class": 3}`` are 20 schools of three classes each.
    per_group : int
        Rows of each group of the last factor; the mean where sizes vary. The number of rows where
        there are no groups.
    predictors : mapping of str to str or callable, optional
        Kind of each predictor:

        - ``"normal"``: quantiles of the standard normal distribution in random order, so that
          each table has the same mean of zero and sd of one; ``"normal by school"``: one value a
          school;
        - ``"binary"``: 0 or 1, in half the rows of each group of the last factor, or of another:
          ``"binary within school"``; ``"binary by school"``: in half the schools, a treatment
          between groups;
        - ``"time"``: 0, 1, 2, ... in each group of the last factor;
        - a function of a random generator and the number of rows.
    sizes : {"balanced", "poisson"}
        Whether groups have `per_group` rows each, or a Poisson number with that mean and at least
        one.

    Returns
    -------
    Study
        The plan; `Study.make_frame` makes a table.

    Raises
    ------
    HmlmError
        If a number is no positive whole number, or a predictor is of no known kind.

    Examples
    --------
    >>> from hmlm.study import make_study
    >>> study = make_study(
    ...     groups={"school": 2, "class": 2},
    ...     per_group=2,
    ...     predictors={"treated": "binary", "new": "binary by school"},
    ... )
    >>> frame = study.make_frame(random_seed=1)
    >>> frame[["school", "class"]].drop_duplicates().to_numpy().tolist()
    [['school1', 'school1.1'], ['school1', 'school1.2'], ['school2', 'school2.1'],
     ['school2', 'school2.2']]
    >>> frame.groupby("class")["treated"].sum().tolist(), int(frame["new"].sum())
    ([1, 1, 1, 1], 4)
    """
    return Study(
        groups=dict(groups or {}),
        per_group=per_group,
        predictors=dict(predictors or {}),
        sizes=sizes,
    )
