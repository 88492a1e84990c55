"""How much of the variance a model explains, as a whole and at each level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hmlm.design import Block
from hmlm.estimates import line_lead, term_label, total_lead
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.variance_parts import (
    check_prob,
    fit_values,
    row_sums,
    share_of,
    spread_of,
    variance_parts,
)


def explained_variance(fit: Any, prob: float = 0.95, method: str | None = None) -> pd.DataFrame:
    r"""Return how much of the variance the model explains: R^2 of every kind.

    For all fits, on the scale of the linear predictor as in `hmlm.variance.split_variance`
    [1]_ [2]_:

    - ``marginal``: what the population terms explain, of the total;
    - ``conditional``: what population terms and group effects explain together.

    For Bayesian fits too:

    - ``bayes``: V(mu) / (V(mu) + residual variance), with mu the expected outcome of each row with
      its group effects and the average variance of outcomes about it, draw by draw [3]_; on the
      scale of the outcome (the proportion, where there are trials). Not for ordinal or
      categorical outcomes, which have no expectation;
    - ``level``: 1 - E(V(error)) / E(V(quantity)) at each level [4]_, with V the variance over its
      units: of the rows about their linear predictor (families with a residual on that scale), and
      of the groups about what group-level predictors say of their intercepts and slopes: near zero
      or below it where those predictors say nothing. One number of the whole posterior, without an
      interval. Not for categorical outcomes.

    Parameters
    ----------
    fit, prob, method
        As in `hmlm.variance.split_variance`.

    Returns
    -------
    pandas.DataFrame
        Columns ``measure, group, term, estimate, std_error, lower, upper, prob``.

    References
    ----------
    .. [1] Nakagawa and Schielzeth (2013), Methods in Ecology and Evolution 4, 133-142.
    .. [2] Nakagawa, Johnson and Schielzeth (2017), Journal of the Royal Society Interface 14,
       20170213.
    .. [3] Gelman, Goodrich, Gabry and Vehtari (2019), R-squared for Bayesian regression models,
       The American Statistician 73, 307-309.
    .. [4] Gelman and Pardoe (2006), Bayesian measures of explained variance and pooling in
       multilevel (hierarchical) models, Technometrics 48, 241-251.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.r_squared import explained_variance
    >>> model = hmlm.Model("Reaction ~ Days + (1 | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> explained_variance(model.fit(hmlm.REML()))[["measure", "estimate"]].round(4)
           measure  estimate
    0     marginal    0.2799
    1  conditional    0.7043
    """
    check_prob(prob)
    rows: list[dict[str, Any]] = []

    def add(measure: str, group: str, term: str, draws: np.ndarray) -> None:
        row = {"measure": measure, "group": group, "term": term}
        rows.append({**row, **spread_of(draws, prob), "prob": prob})

    for parts in variance_parts(fit, method):
        add("marginal", "", parts.term, share_of(parts.population, parts.total))
        fitted = parts.population + parts.between
        add("conditional", "", parts.term, share_of(fitted, parts.total))
    if not isinstance(fit, BayesFit):
        return pd.DataFrame(rows)
    design = fit.design
    if design.spec.family.outcome not in ("ordered", "category"):
        sums = row_sums(fit)
        add("bayes", "", "", share_of(sums.fitted, sums.fitted + sums.residual))
        if np.isfinite(sums.error):
            y = np.log(design.y) if design.spec.family.name == "lognormal" else design.y
            add("level", "", "", np.array([1.0 - sums.error / y.var(ddof=1)]))
    for block in () if design.spec.family.outcome == "category" else design.blocks:
        for column, explained in zip(block.columns, _level_share(fit, block), strict=True):
            add("level", block.group, term_label(design, "", column), np.array([explained]))
    return pd.DataFrame(rows)


def _level_share(fit: BayesFit, block: Block) -> np.ndarray:
    """Return 1 - E(V(b)) / E(V(theta)) for each effect of a factor, shape (q,)."""
    lead = line_lead(fit.design, block)
    if lead is None:
        return np.zeros(len(block.columns))
    values = fit_values(fit, effects=True)
    b = values[f"b_{block.group}"]
    common = total_lead(fit.design, block)
    line = np.einsum("sp,jqp->sjq", values["beta"], lead - common, optimize=True)
    error = b.var(axis=1, ddof=1).mean(axis=0)
    return np.asarray(1.0 - error / (b + line).var(axis=1, ddof=1).mean(axis=0))
