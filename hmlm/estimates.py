"""Any fit becomes one tidy table: the contract between a fit and everything after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hmlm.design import Block, Design, find_block, group_blocks
from hmlm.errors import HmlmError
from hmlm.linear import within_groups

if TYPE_CHECKING:
    import pandas as pd

TIDY_COLUMNS = (
    "fit",
    "component",
    "group",
    "level",
    "term",
    "estimate",
    "std_error",
    "lower",
    "upper",
    "prob",
    "interval",
    "ess_bulk",
    "r_hat",
    "df",
    "statistic",
    "p_value",
)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Numbers:
    """What a fit says about one variable; every array has the shape of the variable.

    None and NaN both mean that the method has no honest figure: the cell stays blank.
    """

    estimate: Any
    std_error: Any
    lower: Any
    upper: Any
    interval: str
    ess_bulk: Any = None
    r_hat: Any = None
    df: Any = None
    statistic: Any = None
    p_value: Any = None


class Fit(Protocol):
    """What any fit has, classical or Bayesian."""

    @property
    def design(self) -> Design:
        """What was fitted."""
        ...

    @property
    def label(self) -> str:
        """Short name for the head of a column."""
        ...

    def describe(self, name: str, prob: float) -> Numbers:
        """Return the numbers of one variable."""
        ...


def total_lead(design: Design, block: Block) -> np.ndarray:
    """Return what turns beta into each effect's population part: lme4's ``coef``.

    Returns
    -------
    ndarray, shape (q, p)
        One where a population column has the name of the group's column.
    """
    lead = np.zeros((len(block.columns), len(design.terms)))
    for k, column in enumerate(block.columns):
        if column in design.terms:
            lead[k, design.terms.index(column)] = 1.0
    return lead


def line_lead(design: Design, block: Block) -> np.ndarray | None:
    """Return what turns beta into the population part of each group's own line.

    A population column that is constant within groups (a group-level predictor) shifts the
    intercept of the group's line, and one that is proportional to a slope's column within groups
    (a cross-level interaction) shifts that slope. With them the line of a group under partial
    pooling is comparable with the one fitted to the group alone.

    Returns
    -------
    ndarray of shape (J, q, p), or None
        None where there is no such column: the line is then the total itself.
    """
    others = [k for k, t in enumerate(design.terms) if t not in block.columns]
    if not others or design.spec.pooling == "none":
        return None
    within = within_groups(block.Z, block.index, design.X[:, others])
    size = np.sqrt((design.X[:, others] ** 2).sum(axis=0))
    inside = np.sqrt((within.residual**2).sum(axis=0)) < 1e-7 * np.where(size > 0, size, 1.0)
    if not inside.any():
        return None
    lead = np.repeat(total_lead(design, block)[None], len(block.levels), axis=0)
    first = np.zeros(len(block.levels), dtype=int)
    first[block.index[::-1]] = np.arange(len(block.index))[::-1]
    for m, k in enumerate(others):
        if not inside[m]:
            continue
        column = design.X[:, k]
        own = column[first]
        constant = np.array_equal(column, own[block.index])
        if constant and "Intercept" in block.columns:
            lead[:, block.columns.index("Intercept"), k] = own
        else:
            lead[:, :, k] = within.coefficients[:, :, m]
    return lead


def tidy_table(fit: Fit, prob: float = 0.95, groups: bool = True) -> pd.DataFrame:
    """Make the tidy table of one fit; see `tidy`."""
    import pandas as pd

    if not 0 < prob < 1:
        raise HmlmError(f"prob must lie between 0 and 1, not {prob}.")
    design = fit.design
    none = design.spec.pooling == "none"
    pieces = []
    for name, dims in design.dims.items():
        if name.startswith("b_") and (none or not groups):
            continue
        pieces.append(_rows(design, name, dims, fit.describe(name, prob)))
    for block in group_blocks(design) if groups else ():
        for kind in ("total", "line"):
            if kind == "line" and line_lead(design, block) is None:
                continue
            name = f"{kind}_{block.group}"
            dims = (block.group, f"{block.group}_term")
            pieces.append(_rows(design, name, dims, fit.describe(name, prob), block))
    table = pd.concat([pd.DataFrame(p) for p in pieces], ignore_index=True)
    table["fit"] = fit.label
    table["prob"] = prob
    return table[list(TIDY_COLUMNS)]


def _rows(
    design: Design,
    name: str,
    dims: tuple[str, ...],
    numbers: Numbers,
    block: Block | None = None,
) -> dict[str, Any]:
    prefix, _, group = name.partition("_")
    component = {"beta": "population", "b": "group"}.get(prefix, prefix)
    if not dims:
        component, group = "residual", ""
    estimate = np.asarray(numbers.estimate, dtype=float)
    keep: Any = slice(None)
    level: Any = ""
    if prefix == "cor":
        block = find_block(design, group)
        pairs = [
            (i, j)
            for part in block.slices
            for i in range(part.start, part.stop)
            for j in range(i + 1, part.stop)
        ]
        q = len(block.columns)
        keep = [i * q + j for i, j in pairs]
        term: Any = [f"{block.columns[i]}, {block.columns[j]}" for i, j in pairs]
    elif len(dims) == 2:
        block = find_block(design, group) if block is None else block
        level = np.repeat(np.asarray(block.levels, dtype=object), len(block.columns))
        term = list(block.columns) * len(block.levels)
    elif len(dims) == 1:
        term = list(design.coords[dims[0]])
    else:
        term = [name]

    def flat(values: Any) -> np.ndarray:
        if values is None:
            values = np.nan
        return np.broadcast_to(np.asarray(values, dtype=float), estimate.shape).reshape(-1)[keep]

    return {
        "component": component,
        "group": group,
        "level": level,
        "term": term,
        "interval": numbers.interval,
        **{
            figure: flat(getattr(numbers, figure))
            for figure in (
                "estimate",
                "std_error",
                "lower",
                "upper",
                "ess_bulk",
                "r_hat",
                "df",
                "statistic",
                "p_value",
            )
        },
    }


def tidy(fit: Fit, prob: float = 0.95, groups: bool = True) -> pd.DataFrame:
    """Return every estimate of a fit in one tidy table.

    Parameters
    ----------
    fit : ClassicalFit or BayesFit
        Any fit.
    prob : float
        Probability of the intervals: equal-tailed ones of the posterior, Wald ones of a classical
        fit.
    groups : bool
        Whether to add the rows of every group.

    Returns
    -------
    pandas.DataFrame
        One row a parameter with columns ``fit, component, group, level, term, estimate,
        std_error, lower, upper, prob, interval, ess_bulk, r_hat, df, statistic, p_value``.
        Components: ``population`` (in the order of the columns of X), ``sd``, ``cor``,
        ``residual``, ``group`` (deviations: lme4's ``ranef``), ``total`` (population + group:
        lme4's ``coef``) and, where there are group-level predictors, ``line`` (the group's own
        intercept and slopes with their contribution, which is what no pooling estimates). Figures
        that a method cannot honestly give are NaN.

    Examples
    --------
    >>> import hmlm
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).fit(hmlm.REML())
    >>> table = hmlm.tidy(fit, groups=False)
    >>> table[["component", "term", "estimate", "std_error"]].round(2)
        component             term  estimate  std_error
    0  population        Intercept    251.41       6.82
    1  population             Days     10.47       1.55
    2          sd        Intercept     24.74        NaN
    3          sd             Days      5.92        NaN
    4         cor  Intercept, Days      0.07        NaN
    5    residual            sigma     25.59        NaN
    """
    return tidy_table(fit, prob, groups)
