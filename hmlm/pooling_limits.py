"""Estimates at given sds between groups: from complete pooling at zero to none at infinity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from hmlm.design import Block, Design
from hmlm.errors import HmlmError, listed, suggest
from hmlm.estimates import line_lead, total_lead
from hmlm.fitting.maximum_likelihood import REML, check_pools
from hmlm.mixed_equations import Solution, least_squares, solve_equations

MOST_COEFFICIENTS = 1_200
MULTIPLES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0, np.inf)
# Of a functional's length, the part in directions that the data leave open: more is "not known".
OPEN = 1e-7


def estimate_at(
    fit: Any,
    sd: float | Sequence[float] | None = None,
    *,
    group: str | None = None,
    sigma: Literal["optimum", "fit"] = "optimum",
) -> pd.DataFrame:
    r"""Return what a gaussian model estimates if the sds between groups are given.

    With y = X beta + Z b + e, b ~ N(0, c^2 D) and a flat prior on beta, the estimates are the best
    linear unbiased ones for the given c: as c goes to 0 those of complete pooling, as c goes to
    infinity those of no pooling. Both ends are computed as such, not approached: at zero the
    effects leave the model, and at infinity they are coefficients without a prior; what the data
    then leave open (the population's intercept, say) takes the limit of its estimates.

    - All sds of the grouping factors keep their ratios, and the effects of a factor their
      correlations, as in the fit. An sd that the fit has at zero counts as the sampling error of
      a group's own estimate instead.
    - ``sigma`` is at its restricted maximum likelihood estimate given these (or as in the fit).
      Known standard errors stay as they are.
    - Other factors than `group`, if it is given, keep their sds.

    `hmlm.plot_conditional` draws the same for one effect of one factor.

    Parameters
    ----------
    fit : Model, BayesFit or ClassicalFit
        A fit under partial pooling (of draws the posterior means of D and sigma are used), or a
        model, which is fitted by REML.
    sd : float or sequence of float, optional
        Values of the sd of the first effect of the (first) factor, from 0 to ``numpy.inf``; by
        default 0, 0.1, 0.25, 0.5, 1, 2, 4 and 10 times that of the fit, and infinity.
    group : str, optional
        Move the sds of this grouping factor only; of all factors when None.
    sigma : {"optimum", "fit"}
        Where the residual sd is.

    Returns
    -------
    pandas.DataFrame
        Columns ``sd, component, group, level, term, estimate, std_error``, the rows of each value
        of `sd` together. Components as in `hmlm.tidy`: ``population``, ``sd`` (what every sd is
        there), ``residual``, ``total`` and, with group-level predictors, ``line``. Standard errors
        are given the variances. At infinity a population coefficient that only differences between
        groups would tell has an infinite one; a total or line that the group's own rows do not
        determine is blank.

    Raises
    ------
    HmlmError
        If the model is not gaussian, does not pool partially, or has more than 1,200 coefficients
        and effects; if `sd` has a value below zero, or `group` is unknown.

    References
    ----------
    .. [1] Gelman et al. (2013), Bayesian Data Analysis, third edition, sections 5.4 and 15.1.
    .. [2] Robinson (1991), That BLUP is a good thing, Statistical Science 6, 15-32.

    Examples
    --------
    >>> import numpy as np
    >>> import hmlm
    >>> from hmlm.pooling_limits import estimate_at
    >>> schools = hmlm.load_dataset("eight_schools")
    >>> model = hmlm.Model("se(y, sigma) ~ 1 + (1 | school)", schools)
    >>> table = estimate_at(model, [0, 10, np.inf]).query("level in ['A', 'B']")
    >>> table[["sd", "component", "level", "estimate", "std_error"]].round(2)
          sd component level  estimate  std_error
    2    0.0     total     A      7.69       4.07
    3    0.0     total     B      7.69       4.07
    12  10.0     total     A     14.24       9.16
    13  10.0     total     B      8.06       7.59
    22   inf     total     A     28.00      15.00
    23   inf     total     B      8.00      10.00
    """
    design: Design = fit.design
    check_pools(design, "estimate_at")
    coefficients = len(design.terms) + sum(len(b.levels) * len(b.columns) for b in design.blocks)
    if coefficients > MOST_COEFFICIENTS:
        raise HmlmError(
            f"estimate_at solves for all coefficients and effects at once, at most "
            f"{MOST_COEFFICIENTS:,}, and this model has {coefficients:,}: use fewer groups, or "
            "hmlm.plot_conditional, which takes the groups one by one."
        )
    if sigma not in ("optimum", "fit"):
        raise HmlmError(f"sigma is 'optimum' or 'fit', not {sigma!r}.")
    moved = _moved(design, group)
    if not hasattr(fit, "describe"):
        fit = REML(df="normal").run(design)
    base = _spread(fit, design, moved)
    lead = base[moved[0].group][0][0]
    grid = lead * np.array(MULTIPLES) if sd is None else _grid(sd)
    at_fit = None if sigma == "optimum" else float(fit.describe("sigma", 0.95).estimate)
    if design.known_se:
        at_fit = 1.0
    problem = least_squares(design)
    wanted = _wanted(design)
    tables = []
    for value in grid:
        sds = {
            b.group: base[b.group][0] * (_ratio(float(value), lead) if b in moved else 1.0)
            for b in design.blocks
        }
        found = solve_equations(problem, design, base, sds, at_fit)
        tables.append(_table(design, wanted, found, sds, float(value)))
    return pd.concat(tables, ignore_index=True)


def _moved(design: Design, group: str | None) -> list[Block]:
    names = [b.group for b in design.blocks]
    if group is not None and group not in names:
        raise HmlmError(
            f"there is no grouping factor '{group}' in the model.{suggest(group, names)} "
            f"There are: {listed(names)}."
        )
    return [b for b in design.blocks if group in (None, b.group)]


def _grid(sd: Any) -> np.ndarray:
    try:
        grid = np.atleast_1d(np.asarray(sd, dtype=float))
    except (TypeError, ValueError):
        grid = np.full(1, np.nan)
    if grid.ndim != 1 or not len(grid) or not (grid >= 0).all():
        raise HmlmError(f"sd must be a number, or numbers, from zero to infinity, not {sd!r:.60}.")
    return grid


def _ratio(value: float, lead: float) -> float:
    return value if np.isinf(value) else value / lead


def _spread(
    fit: Any, design: Design, moved: list[Block]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the sds of every factor's effects, and the Cholesky factor of their correlations."""
    found = {}
    w = np.ones(len(design.y)) if design.weights is None else design.weights
    error = 1.0 if design.known_se else float(fit.describe("sigma", 0.95).estimate)
    for block in design.blocks:
        sd = np.array(fit.describe(f"sd_{block.group}", 0.95).estimate, dtype=float)
        if block in moved:
            for k in np.flatnonzero(sd <= 1e-6 * error):
                own = np.bincount(block.index, w * block.Z[:, k] ** 2, len(block.levels))
                sd[k] = error / np.sqrt(np.median(own[own > 0]))
        R = np.eye(len(sd))
        if block.correlated:
            R = np.nan_to_num(np.array(fit.describe(f"cor_{block.group}", 0.95).estimate))
            R *= 1.0 - 1e-9  # a perfect correlation has no Cholesky factor
            np.fill_diagonal(R, 1.0)
        found[block.group] = (sd, np.linalg.cholesky(R))
    return found


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Wanted:
    """Linear functions of coefficients and effects that the table has rows for.

    Attributes
    ----------
    keys : pandas.DataFrame
        ``component, group, level, term`` of each.
    lead : ndarray, shape (m, k)
        The functions.
    length : ndarray, shape (k,)
        Lengths of the columns of [X, Z], by which coefficients of any unit are comparable.
    """

    keys: pd.DataFrame
    lead: np.ndarray
    length: np.ndarray


def _keys(component: str, group: str, level: Any, term: Any) -> pd.DataFrame:
    rows = {"component": component, "group": group, "level": level, "term": term}
    return pd.DataFrame(rows).astype(object)


def _wanted(design: Design) -> _Wanted:
    p = len(design.terms)
    k = p + sum(len(b.levels) * len(b.columns) for b in design.blocks)
    keys = [_keys("population", "", "", list(design.terms))]
    leads, lengths, start = [np.eye(p, k)], [(design.X**2).sum(axis=0)], p
    for block in design.blocks:
        J, q = len(block.levels), len(block.columns)
        levels = np.repeat(np.asarray(block.levels, dtype=object), q)
        line = line_lead(design, block)
        total = np.broadcast_to(total_lead(design, block), (J, q, p))
        for component, lead in (("total", total), ("line", line)):
            if lead is not None:
                own = np.zeros((J * q, k))
                own[:, :p] = lead.reshape(J * q, p)
                own[:, start : start + J * q] = np.eye(J * q)
                leads.append(own)
                keys.append(_keys(component, block.group, levels, list(block.columns) * J))
        sums = np.zeros((J, q))
        np.add.at(sums, block.index, block.Z**2)
        lengths.append(sums.reshape(-1))
        start += J * q
    length = np.sqrt(np.concatenate(lengths))
    length[length == 0] = 1.0
    return _Wanted(keys=pd.concat(keys), lead=np.vstack(leads), length=length)


def _table(
    design: Design, wanted: _Wanted, found: Solution, sds: dict[str, np.ndarray], at: float
) -> pd.DataFrame:
    estimate = wanted.lead @ found.u
    error = np.sqrt(((wanted.lead @ found.half.T) ** 2).sum(axis=1))
    if found.open.shape[1]:
        length = wanted.length[:, None]
        directions = np.linalg.qr(found.open * length)[0]
        own = wanted.lead / length.T
        unknown = np.sqrt(((own @ directions) ** 2).sum(axis=1))
        unknown = unknown > OPEN * np.sqrt((own**2).sum(axis=1))
        population = (wanted.keys["component"] == "population").to_numpy()
        error[unknown] = np.where(population[unknown], np.inf, np.nan)
        estimate[unknown & ~population] = np.nan
    rows = wanted.keys.assign(estimate=estimate, std_error=error)
    p = len(design.terms)
    pieces = [rows.iloc[:p]]
    for block in design.blocks:
        own_sds = _keys("sd", block.group, "", list(block.columns))
        pieces.append(own_sds.assign(estimate=sds[block.group], std_error=np.nan))
    if not design.known_se:
        sigma = _keys("residual", "", "", ["sigma"])
        pieces.append(sigma.assign(estimate=found.sigma, std_error=np.nan))
    table = pd.concat([*pieces, rows.iloc[p:]], ignore_index=True)
    table.insert(0, "sd", at)
    return table
