"""Where the variance lies: between groups, within them, and in what the predictors explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hmlm.design import Block, Design, find_block
from hmlm.errors import HmlmError, listed, suggest
from hmlm.group_rows import group_variance
from hmlm.prediction import block_covariance
from hmlm.variance_parts import (
    Parts,
    check_pooled,
    check_prob,
    fit_values,
    share_of,
    spread_of,
    variance_parts,
)

At = Mapping[str, float | Sequence[float]]


def split_variance(fit: Any, prob: float = 0.95, method: str | None = None) -> pd.DataFrame:
    r"""Split the variance of an outcome by level.

    On the scale of the linear predictor, with rows i = 1..N:

    - ``population``: variance over the rows of x'beta [1]_;
    - ``group``: for every grouping factor the average over the rows of z'Dz, so that slopes count
      by what they contribute [2]_. Of one intercept it is its variance;
    - ``residual``: sigma^2 (divided by the weights, on average; known standard errors squared,
      where those are known), sigma^2 nu / (nu - 2) of a student-t; else the variance that the
      family implies.

    That of the family is, by `method` [3]_:

    - ``theoretical`` (default under logit, probit and cloglog links, also of ordinal and
      categorical outcomes): the variance of the latent outcome of one trial, pi^2/3, 1 or pi^2/6;
    - ``delta`` (default of other links, and of beta outcomes): Var(y) / (dE(y)/deta)^2, at the
      average expected outcome; of Poisson counts with mean m it is 1/m, of a gamma outcome
      1/alpha, of negative binomial counts 1/m + 1/alpha;
    - ``lognormal`` (default under the log link): log(1 + delta);
    - ``trigamma``: trigamma(1 / delta).

    The average expected outcome is that of the fit: over all rows, and over new groups (so of
    Poisson counts the average of exp(x'beta + z'Dz/2)).

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        A fit under partial or complete pooling.
    prob : float
        Probability of the equal-tailed intervals of draws. Classical fits have none: blank.
    method : {"theoretical", "delta", "lognormal", "trigamma"}, optional
        How to find the variance of a family without a residual.

    Returns
    -------
    pandas.DataFrame
        Columns ``component, group, term, estimate, std_error, lower, upper, share, share_lower,
        share_upper, prob``; components ``population``, ``group``, ``residual`` and ``total``.
        ``term`` tells the linear predictors of a categorical outcome apart and is else empty.

    Raises
    ------
    HmlmError
        If the fit does not pool, or the family has no such method.

    References
    ----------
    .. [1] Nakagawa and Schielzeth (2013), A general and simple method for obtaining R2 from
       generalized linear mixed-effects models, Methods in Ecology and Evolution 4, 133-142.
    .. [2] Johnson (2014), Extension of Nakagawa and Schielzeth's R2GLMM to random slopes models,
       Methods in Ecology and Evolution 5, 944-946.
    .. [3] Nakagawa, Johnson and Schielzeth (2017), The coefficient of determination R2 and
       intra-class correlation coefficient from generalized linear mixed-effects models revisited
       and expanded, Journal of the Royal Society Interface 14, 20170213.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.variance import split_variance
    >>> model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    >>> table = split_variance(model.fit(hmlm.REML()))
    >>> table[["component", "group", "estimate", "share"]].round(2)
        component  group  estimate  share
    0  population             0.00   0.00
    1       group  Batch   1764.05   0.42
    2    residual         2451.25   0.58
    3       total         4215.30   1.00
    """
    check_prob(prob)
    rows = []
    for parts in variance_parts(fit, method):
        pieces = [("population", "", parts.population)]
        pieces += [("group", group, draws) for group, draws in parts.groups.items()]
        pieces += [("residual", "", parts.residual), ("total", "", parts.total)]
        for component, group, draws in pieces:
            share = spread_of(share_of(draws, parts.total), prob)
            row: dict[str, Any] = {"component": component, "group": group, "term": parts.term}
            row |= spread_of(draws, prob)
            row |= {"share": share["estimate"]}
            row |= {f"share_{end}": share[end] for end in ("lower", "upper")}
            rows.append({**row, "prob": prob})
    return pd.DataFrame(rows)


def intraclass_correlation(
    fit: Any,
    group: str | None = None,
    at: At | None = None,
    prob: float = 0.95,
    method: str | None = None,
) -> pd.DataFrame:
    """Return the intraclass correlation: the share of the variance that lies between groups.

    - ``adjusted``: the variance between the groups over that of all grouping factors and the
      residual, so of what the predictors leave;
    - ``unadjusted``: over all variance, what the predictors explain included [1]_;
    - ``same level``: for a factor whose levels lie within those of others (batch/cask), the
      correlation of two rows of one level, which share the levels above it too [2]_.

    With slopes, the variance between groups depends on the predictors: it is the average over the
    rows [3]_, or that at the values in `at`, which is the variance partition coefficient [2]_.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        A fit under partial pooling.
    group : str, optional
        One grouping factor; all of them when None.
    at : mapping of str to number or numbers, optional
        Values of columns that vary by group, such as ``{"Days": [0, 5, 9]}``; the columns that it
        does not name are averaged over. Only ``adjusted`` and ``same level`` are given then.
    prob, method
        As in `split_variance`.

    Returns
    -------
    pandas.DataFrame
        Columns ``group, term, at, kind, estimate, std_error, lower, upper, prob``.

    References
    ----------
    .. [1] Nakagawa, Johnson and Schielzeth (2017), Journal of the Royal Society Interface 14,
       20170213, section 2.
    .. [2] Goldstein, Browne and Rasbash (2002), Partitioning variation in multilevel models,
       Understanding Statistics 1, 223-231.
    .. [3] Johnson (2014), Methods in Ecology and Evolution 5, 944-946.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.variance import intraclass_correlation
    >>> model = hmlm.Model("Reaction ~ Days + (Days | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> table = intraclass_correlation(model.fit(hmlm.REML()), at={"Days": [0, 9]})
    >>> table[["at", "kind", "estimate"]].round(3)
           at      kind  estimate
    0  Days=0  adjusted     0.483
    1  Days=9  adjusted     0.847
    """
    check_prob(prob)
    check_pooled(fit, "an intraclass correlation")
    design: Design = fit.design
    chosen = [b.group for b in design.blocks] if group is None else [_known_group(design, group)]
    rows = []
    for label, places in _places(design, at):
        for parts in _parts_at(fit, places, method):
            for name in chosen:
                block = find_block(design, name)
                left = parts.between + parts.residual
                draws = {"adjusted": share_of(parts.groups[name], left)}
                if at is None:
                    draws["unadjusted"] = share_of(parts.groups[name], parts.total)
                if above := [b.group for b in design.blocks if _lies_within(block, b)]:
                    shared = sum((parts.groups[g] for g in above), parts.groups[name])
                    draws["same level"] = share_of(shared, left)
                for kind, values in draws.items():
                    row = {"group": name, "term": parts.term, "at": label, "kind": kind}
                    rows.append({**row, **spread_of(values, prob), "prob": prob})
    return pd.DataFrame(rows)


def _known_group(design: Design, group: str) -> str:
    names = [b.group for b in design.blocks]
    if group not in names:
        raise HmlmError(
            f"there is no grouping factor '{group}' in the fit.{suggest(group, names)} "
            f"There are: {listed(names)}."
        )
    return group


def _places(design: Design, at: At | None) -> list[tuple[str, dict[str, float]]]:
    """Return the combinations of values at which variances are wanted, with their labels."""
    if at is None:
        return [("", {})]
    columns = list(dict.fromkeys(c for b in design.blocks for c in b.columns if c != "Intercept"))
    for name in at:
        if name not in columns:
            has = f"these do: {listed(columns)}" if columns else "no column does: leave at out"
            raise HmlmError(
                f"at: '{name}' does not vary by group.{suggest(name, columns)} In this fit {has}."
            )
    try:
        values = [np.atleast_1d(np.asarray(v, dtype=float)) for v in at.values()]
        values = list(np.broadcast_arrays(*values))
    except (TypeError, ValueError):
        raise HmlmError(
            f"at must give each column a number, or as many numbers as the others have; not {at}."
        ) from None
    if not values or not values[0].size or values[0].ndim > 1:
        raise HmlmError("at is empty: leave it out, or give a column one or more numbers.")
    found = []
    for row in zip(*values, strict=True):
        own = dict(zip(at, map(float, row), strict=True))
        found.append((", ".join(f"{k}={v:g}" for k, v in own.items()), own))
    return found


def _parts_at(fit: Any, places: dict[str, float], method: str | None) -> tuple[Parts, ...]:
    whole = variance_parts(fit, method)
    if not places:
        return whole
    design, values = fit.design, fit_values(fit)
    predictors = design.predictors if len(whole) > 1 else design.predictors[:1]
    moved = []
    for parts, p in zip(whole, predictors, strict=True):
        groups = {}
        for block in p.blocks:
            Z = np.array(block.Z)
            for name, value in places.items():
                if name in block.columns:
                    one = (
                        1.0 if block.cells is None or block.cells.ones is None else block.cells.ones
                    )
                    Z[:, block.columns.index(name)] = value * one
            groups[block.group] = group_variance(block_covariance(values, p, block), block, Z)
        moved.append(
            Parts(
                term=parts.term,
                population=parts.population,
                groups=groups,
                residual=parts.residual,
            )
        )
    return tuple(moved)


def _lies_within(block: Block, other: Block) -> bool:
    """Whether every level of one factor lies in one level of another, which has fewer."""
    if block.group == other.group or len(other.levels) >= len(block.levels):
        return False
    pairs = block.index * len(other.levels) + other.index
    return len(np.unique(pairs)) == len(block.levels)


def design_effect(
    fit: Any, group: str | None = None, prob: float = 0.95, method: str | None = None
) -> pd.DataFrame:
    r"""Return how much less than independent rows the rows of groups say about a mean.

    With the adjusted intraclass correlation rho of a grouping factor (see
    `intraclass_correlation`) and n_j rows of level j,

    - each level: design effect 1 + (n_j - 1) rho, effective size n_j / (1 + (n_j - 1) rho);
    - all rows together, where the level is blank: 1 + (n - 1) rho with n = sum n_j^2 / sum n_j,
      the average size of the group that a row is in [1]_, and N over that.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        A fit under partial pooling.
    group : str, optional
        One grouping factor; all of them, each by itself, when None.
    prob, method
        As in `split_variance`.

    Returns
    -------
    pandas.DataFrame
        Columns ``group, level, term, rows, design_effect, effective_size, lower, upper, prob``;
        the interval is that of the effective size.

    References
    ----------
    .. [1] Kish (1965), Survey Sampling, sections 5.4 and 8.2; Kish (1987), Weighting in Deft2, The
       Survey Statistician, June 1987.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.variance import design_effect
    >>> model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    >>> table = design_effect(model.fit(hmlm.REML()))
    >>> table[["level", "rows", "design_effect", "effective_size"]].round(2).head(2)
      level  rows  design_effect  effective_size
    0          30           2.67           11.22
    1     A     5           2.67            1.87
    """
    check_prob(prob)
    check_pooled(fit, "a design effect")
    design: Design = fit.design
    chosen = [b.group for b in design.blocks] if group is None else [_known_group(design, group)]
    pieces = []
    for parts in variance_parts(fit, method):
        for name in chosen:
            block = find_block(design, name)
            rho = share_of(parts.groups[name], parts.between + parts.residual)
            own = block.sizes.astype(float)
            size = np.concatenate([[(own**2).sum() / own.sum()], own])
            count = np.concatenate([[own.sum()], own])
            # Levels of the same size have the same figures.
            distinct, place = np.unique(np.column_stack([size, count]), axis=0, return_inverse=True)
            effect = 1.0 + np.outer(rho, distinct[:, 0] - 1.0)
            effective = [spread_of(draws, prob) for draws in (distinct[:, 1] / effect).T]
            figures = pd.DataFrame(effective).iloc[place.reshape(-1)].reset_index(drop=True)
            pieces.append(
                pd.DataFrame(
                    {
                        "group": name,
                        "level": np.array(["", *block.levels], dtype=object),
                        "term": parts.term,
                        "rows": count.astype(int),
                        "design_effect": effect.mean(axis=0)[place.reshape(-1)],
                        "effective_size": figures["estimate"],
                        "lower": figures["lower"],
                        "upper": figures["upper"],
                        "prob": prob,
                    }
                )
            )
    return pd.concat(pieces, ignore_index=True)
