"""Linear predictors: population columns, and blocks of columns whose effects vary by group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hmlm.cells import Cells, Moments, moments
from hmlm.data import GroupedData, read_only
from hmlm.encoding import Encoding, encode
from hmlm.errors import DataError, listed
from hmlm.linear import dependent_columns
from hmlm.spec import GroupTerm


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Block:
    """The group effects of one grouping factor.

    Attributes
    ----------
    group : str
        Name of the factor.
    levels : pandas.Index, length J
        Its levels.
    index : ndarray of int, shape (N,)
        Every row's level.
    columns : tuple of str, length q
        Names of the columns of Z.
    Z : ndarray, shape (N, q)
        Values that the effects of a row's group are multiplied with.
    parts : tuple of int
        Sizes of the correlated parts, which sum to q: ``(2,)`` for ``(x | g)``, ``(1, 1)`` for
        ``(x || g)``.
    encodings : tuple of Encoding
        What makes Z from new rows.
    cells : Cells or None
        What the rows stand for where they are not the rows of the table.
    moments : Moments or None
        Of the columns of Z over all rows of the table, where `cells` is given.
    """

    group: str
    levels: pd.Index
    index: np.ndarray
    columns: tuple[str, ...]
    Z: np.ndarray
    parts: tuple[int, ...]
    encodings: tuple[Encoding, ...]
    cells: Cells | None = None
    moments: Moments | None = None

    @property
    def sizes(self) -> np.ndarray:
        """Number of rows of each level."""
        if self.cells is None:
            return np.bincount(self.index, minlength=len(self.levels))
        sizes = np.bincount(self.index, self.cells.counts, len(self.levels))
        return sizes.astype(np.int64)

    @property
    def spread(self) -> Moments:
        """Averages and standard deviations of the columns of Z over the rows of the table."""
        return moments(self.Z) if self.moments is None else self.moments

    @property
    def correlated(self) -> bool:
        """Whether any two effects of a level are correlated."""
        return any(size > 1 for size in self.parts)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Columns of each correlated part."""
        stops = np.cumsum(self.parts)
        return tuple(slice(int(b - a), int(b)) for a, b in zip(self.parts, stops, strict=True))


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Predictor:
    """One linear predictor: that of the mean, or of another parameter of the family.

    Attributes
    ----------
    name : str
        Empty for the mean; else the parameter (``sigma``), or ``mu_<category>`` for the second and
        later categories of a categorical outcome.
    X : ndarray, shape (N, p)
        Population columns.
    terms : tuple of str, length p
        Their names.
    blocks : tuple of Block
        One for each grouping factor.
    offset : ndarray of shape (N,) or None
        Known part.
    encoding : Encoding
        What makes X from new rows.
    aliased : tuple of str
        Columns that were dropped.
    moments : Moments or None
        Of the columns of X over all rows of the table, where the rows are not those of the table.
    """

    name: str
    X: np.ndarray
    terms: tuple[str, ...]
    blocks: tuple[Block, ...]
    offset: np.ndarray | None
    encoding: Encoding
    aliased: tuple[str, ...] = ()
    moments: Moments | None = None

    @property
    def spread(self) -> Moments:
        """Averages and standard deviations of the columns of X over the rows of the table."""
        return moments(self.X) if self.moments is None else self.moments

    def named(self, variable: str) -> str:
        """Return the name that a variable of this predictor has: ``sigma_beta``."""
        return f"{self.name}_{variable}" if self.name else variable


@dataclass(frozen=True, kw_only=True, slots=True)
class Variable:
    """One variable of a model.

    Attributes
    ----------
    name : str
        Its name among estimates and draws.
    kind : {"population", "sd", "cor", "cutpoint", "parameter", "group"}
        What it holds.
    predictor : str
        Name of its linear predictor; empty for that of the mean.
    group : str
        Grouping factor of an sd, a correlation or group effects; empty elsewhere.
    dims : tuple of str
        Its dimensions.
    """

    name: str
    kind: str
    predictor: str
    group: str
    dims: tuple[str, ...]


def encode_data(text: str, data: GroupedData) -> Encoding:
    """Make the columns of a sum of terms from the rows, or take those made for their sums."""
    made = {} if data.cells is None else data.cells.encodings
    found: Encoding = made[text] if text in made else encode(text, data.frame)
    return found


def column_moments(
    encodings: tuple[Encoding, ...], values: np.ndarray, cells: Cells | None
) -> Moments | None:
    """Return averages and spreads of made columns over all rows of the table.

    Parameters
    ----------
    encodings : tuple of Encoding
        What made the columns.
    values : ndarray, shape (R, k)
        The columns, side by side.
    cells : Cells or None
        What the rows stand for; without it there is nothing to say.
    """
    if cells is None:
        return None
    if not cells.sums:
        return moments(values, cells.counts)
    own = [cells.moments[e.text] for e in encodings if e.names]
    empty = np.zeros(0)
    return Moments(
        n=cells.n,
        mean=np.concatenate([empty, *(m.mean for m in own)]),
        sd=np.concatenate([empty, *(m.sd for m in own)]),
    )


def distances(found: Moments | None) -> np.ndarray | None:
    """Return the root of each column's sum of squares less its average, for `dependent_columns`."""
    return None if found is None else np.sqrt(found.n * found.variance)


def make_blocks(group_terms: tuple[GroupTerm, ...], data: GroupedData) -> tuple[Block, ...]:
    """Make one block for each grouping factor.

    Raises
    ------
    DataError
        If columns of a term depend on each other, or a column varies by a factor in two terms.
    """
    blocks = []
    for group in dict.fromkeys(t.group for t in group_terms):
        encodings: list[Encoding] = []
        columns: list[str] = []
        parts: list[int] = []
        for term in (t for t in group_terms if t.group == group):
            encoding = encode_data(term.terms, data)
            if twice := set(encoding.names).intersection(columns):
                raise DataError(
                    f"'{min(twice)}' varies by '{group}' in two terms: name it in one, or write "
                    f"(0 + ... | {group}) for the second."
                )
            columns += encoding.names
            parts += [len(encoding.names)] if term.correlated else [1] * len(encoding.names)
            encodings.append(encoding)
        if not columns:
            raise DataError(f"the term of '{group}' has no effect left: write (1 | {group}).")
        Z = np.column_stack([e.values for e in encodings])
        own = column_moments(tuple(encodings), Z, data.cells)
        for k, others in dependent_columns(Z, spread=distances(own)).items():
            if _distinguishable(Z, parts):
                break
            raise DataError(
                f"in the group term of '{group}', '{columns[k]}' depends on "
                f"{listed(columns[i] for i in others) or 'nothing: it is zero in every row'}: "
                "leave one of them out."
            )
        blocks.append(
            Block(
                group=group,
                levels=data.levels[group],
                index=data.index[group],
                columns=tuple(columns),
                Z=read_only(np.ascontiguousarray(Z)),
                parts=tuple(parts),
                encodings=tuple(encodings),
                cells=data.cells,
                moments=own,
            )
        )
    return tuple(blocks)


def _distinguishable(Z: np.ndarray, parts: list[int]) -> bool:
    """Return whether the data tell the variances of dependent columns apart.

    As in ``(1 | g) + (0 + factor || g)``: each variance and covariance is the weight of an outer
    product of two columns, and those may be independent where the columns are not.
    """
    length = np.sqrt((Z**2).sum(axis=0))
    R = np.linalg.qr(Z / np.where(length > 0, length, 1.0), mode="r")
    products = []
    stops = np.cumsum(parts)
    for start, stop in zip(stops - parts, stops, strict=True):
        for a in range(start, stop):
            for b in range(start, a + 1):
                products.append((np.outer(R[:, a], R[:, b]) + np.outer(R[:, b], R[:, a])).ravel())
    return bool(np.linalg.matrix_rank(np.array(products)) == len(products))
