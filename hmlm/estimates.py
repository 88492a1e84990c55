"""Any fit becomes one tidy table: the contract between a fit and everything after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np

from hmlm.design import Block, Design, Variable, find_block, group_blocks
from hmlm.errors import HmlmError
from hmlm.families import PARAMETERS
from hmlm.group_rows import constant_within, group_values, row_shares
from hmlm.linear import within_groups
from hmlm.links import from_link, to_link

if TYPE_CHECKING:
    import pandas as pd

Scale = Literal["link", "ratio", "response"]
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

    def describe(self, name: str, prob: float, ratio: bool = False) -> Numbers:
        """Return the numbers of one variable, or of its exponential."""
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
    constant, own = constant_within(design, block), group_values(design, block)
    for m, k in enumerate(others):
        if not inside[m]:
            continue
        if constant[k] and "Intercept" in block.columns:
            lead[:, block.columns.index("Intercept"), k] = own[:, k]
        else:
            lead[:, :, k] = within.coefficients[:, :, m]
    return lead


def group_means(design: Design, block: Block, mu: np.ndarray) -> np.ndarray:
    """Average expected outcomes over the rows of every level.

    Parameters
    ----------
    design : Design
        The model.
    block : Block
        The grouping factor.
    mu : ndarray, shape (..., N)
        Expected outcome of every row.

    Returns
    -------
    ndarray, shape (..., J)
        The averages.
    """
    flat, (weight, total) = mu.reshape(-1, mu.shape[-1]), row_shares(design, block)
    rows = flat if weight is None else flat * weight
    sums = np.stack([np.bincount(block.index, row, len(block.levels)) for row in rows])
    return (sums / total).reshape(*mu.shape[:-1], len(block.levels))


def bounds_of_means(
    design: Design, value: np.ndarray, half: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds of expected outcomes, symmetric in the logit of shares and the log of counts.

    Parameters
    ----------
    design : Design
        The model.
    value, half : ndarray
        Expected outcomes, and half the width of their intervals to first order.
    """
    outcome = design.spec.family.outcome
    with np.errstate(divide="ignore", invalid="ignore"):
        if outcome in ("binary", "trials", "unit"):
            middle, wide = to_link("logit", value), half / (value * (1.0 - value))
            return from_link("logit", middle - wide), from_link("logit", middle + wide)
        if outcome in ("count", "positive"):
            return value * np.exp(-half / value), value * np.exp(half / value)
    return value - half, value + half


RATIOS = {"log": "rate ratios", "logit": "odds ratios", "cloglog": "hazard ratios"}


def check_scale(design: Design, scale: str) -> None:
    """Raise an HmlmError if a table cannot be on that scale."""
    if scale not in get_args(Scale):
        raise HmlmError(f"scale is 'link', 'ratio' or 'response', not {scale!r}.")
    link = design.spec.family.link
    if scale == "ratio" and link not in RATIOS and design.spec.family.name != "lognormal":
        raise HmlmError(
            f"ratios are exponentials of coefficients under a log, logit or cloglog link; this "
            f"model has the {link} link: use scale='link' or scale='response'."
        )


def tidy_table(
    fit: Fit, prob: float = 0.95, groups: bool = True, scale: Scale = "link"
) -> pd.DataFrame:
    """Make the tidy table of one fit; see `tidy`."""
    import pandas as pd

    if not 0 < prob < 1:
        raise HmlmError(f"prob must lie between 0 and 1, not {prob}.")
    design = fit.design
    check_scale(design, scale)
    none = design.spec.pooling == "none"
    pieces = []
    for variable in design.variables:
        if variable.kind == "group" and (none or not groups):
            continue
        ratio = (
            scale == "ratio"
            and variable.kind == "population"
            and variable.predictor not in PARAMETERS
        )
        numbers = fit.describe(variable.name, prob, ratio=ratio)
        pieces.append(_rows(design, variable, numbers))
    for block in group_blocks(design) if groups else ():
        kinds = ["mean"] if scale == "response" else ["total", "line"]
        if scale == "response" and design.spec.family.outcome in ("ordered", "category"):
            continue
        for kind in kinds:
            if kind == "line" and line_lead(design, block) is None:
                continue
            numbers = fit.describe(f"{kind}_{block.group}", prob, ratio=scale == "ratio")
            pieces.append(_group_rows(block, kind, numbers))
    table = pd.concat([pd.DataFrame(p) for p in pieces], ignore_index=True)
    table["fit"] = fit.label
    table["prob"] = prob
    return table[list(TIDY_COLUMNS)]


def term_label(design: Design, predictor: str, term: str) -> str:
    """Return the name of a term: that of another predictor begins with the predictor's name.

    Examples
    --------
    >>> import hmlm
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> design = hmlm.Model("Reaction ~ Days + (1 | Subject); sigma ~ Days", sleep).design
    >>> term_label(design, "", "Days"), term_label(design, "sigma", "Days")
    ('Days', 'sigma_Days')
    """
    if not predictor and design.spec.family.outcome == "category":
        predictor = f"mu_{design.categories[1]}"
    return f"{predictor}_{term}" if predictor else term


def find_effects(design: Design, variable: Variable) -> Block:
    """Return the block that a variable of sds, correlations or group effects belongs to."""
    if not variable.predictor:
        return find_block(design, variable.group)
    predictor = next(p for p in design.distributional if p.name == variable.predictor)
    return next(b for b in predictor.blocks if b.group == variable.group)


COMPONENTS = {"parameter": "residual", "cutpoint": "cutpoint"}


def _rows(design: Design, variable: Variable, numbers: Numbers) -> dict[str, Any]:
    keep: Any = slice(None)
    level: Any = ""
    if variable.kind in ("sd", "cor", "group"):
        block = find_effects(design, variable)
        columns = [term_label(design, variable.predictor, c) for c in block.columns]
    if variable.kind == "cor":
        q = len(columns)
        pairs = [
            (i, j)
            for part in block.slices
            for i in range(part.start, part.stop)
            for j in range(i + 1, part.stop)
        ]
        keep = [i * q + j for i, j in pairs]
        term: Any = [f"{columns[i]}, {columns[j]}" for i, j in pairs]
    elif variable.kind == "group":
        level = np.repeat(np.asarray(block.levels, dtype=object), len(columns))
        term = columns * len(block.levels)
    elif variable.kind == "sd":
        term = columns
    elif variable.kind == "population":
        names = design.coords[variable.dims[0]]
        term = [term_label(design, variable.predictor, t) for t in names]
    elif variable.kind == "cutpoint":
        term = list(design.coords[variable.dims[0]])
    else:
        term = [variable.name]
    component = COMPONENTS.get(variable.kind, variable.kind)
    return _figures(component, variable.group, level, term, numbers, keep)


def _group_rows(block: Block, kind: str, numbers: Numbers) -> dict[str, Any]:
    """Return the rows of totals, lines or average expected outcomes of a grouping factor."""
    if kind == "mean":
        levels = np.asarray(block.levels, dtype=object)
        return _figures(kind, block.group, levels, ["mean"] * len(levels), numbers)
    level = np.repeat(np.asarray(block.levels, dtype=object), len(block.columns))
    return _figures(kind, block.group, level, list(block.columns) * len(block.levels), numbers)


def _figures(
    component: str, group: str, level: Any, term: Any, numbers: Numbers, keep: Any = slice(None)
) -> dict[str, Any]:
    estimate = np.asarray(numbers.estimate, dtype=float)

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


def tidy(fit: Fit, prob: float = 0.95, groups: bool = True, scale: Scale = "link") -> pd.DataFrame:
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
    scale : {"link", "ratio", "response"}
        Coefficients and totals on the scale of the link; their exponentials, which are odds ratios
        under a logit link and rate ratios under a log link (with the intercept the odds or the
        rate itself); or, instead of totals, the average expected outcome of the rows of each group.

    Returns
    -------
    pandas.DataFrame
        One row a parameter with columns ``fit, component, group, level, term, estimate,
        std_error, lower, upper, prob, interval, ess_bulk, r_hat, df, statistic, p_value``.
        Components: ``population`` (in the order of the columns of X), ``cutpoint``, ``sd``,
        ``cor``, ``residual`` (sigma and other parameters of the family), ``group`` (deviations:
        lme4's ``ranef``), ``total`` (population + group: lme4's ``coef``), where there are
        group-level predictors ``line`` (the group's own intercept and slopes with their
        contribution, which is what no pooling estimates), and ``mean`` (average expected outcome
        of the group's rows). Terms of another linear predictor begin with its name: ``sigma_x``.
        Figures that a method cannot honestly give are NaN.

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
    return tidy_table(fit, prob, groups, scale)
