"""What the rows of each group are worth, and how much its own mean weighs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hmlm.variance import design_effect
from hmlm.variance_parts import share_of, spread_of, variance_parts


def weigh_groups(
    fit: Any, group: str | None = None, prob: float = 0.95, method: str | None = None
) -> pd.DataFrame:
    r"""Return what the rows of each group are worth, and how much weight its own mean gets.

    With the adjusted intraclass correlation rho of a grouping factor (see
    `hmlm.variance.intraclass_correlation`) and n_j rows of level j,

    - ``effective_size``: n_j / (1 + (n_j - 1) rho), the number of independent rows that say as
      much about the mean of all (from `hmlm.variance.design_effect`);
    - ``weight``: n_j rho / (1 + (n_j - 1) rho), the weight of the group's own mean in its
      partially pooled estimate, in other words the reliability of that mean [1]_;
    - ``prior_rows``: (1 - rho) / rho, the number of rows that the other groups count for: a group
      with that many of its own has a weight of one half [2]_. Of draws it is the median.

    With one intercept for each group of a gaussian model ``weight`` is 1 - lambda of
    `hmlm.pooling_factors.measure_pooling`, exactly; with weights of rows, or known standard errors,
    n_j is in it the sum of the group's weights over the harmonic mean of all weights. With slopes
    or several factors it is about the mean of a group's rows, and the pooling factors are about
    each effect. In other families the residual variance is the one that `method` says.

    Where the level is blank: all rows, and the average weight of the groups [1]_.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        A fit under partial pooling.
    group : str, optional
        One grouping factor; all of them when None.
    prob : float
        Probability of the equal-tailed intervals of draws. Classical fits have none: blank.
    method : str, optional
        As in `hmlm.variance.split_variance`.

    Returns
    -------
    pandas.DataFrame
        Columns ``component, group, level, term, rows``, then ``effective_size``, ``weight`` and
        ``prior_rows``, each followed by its ``_lower`` and ``_upper``, and ``prob``; components
        ``level`` and ``group``.

    Raises
    ------
    HmlmError
        If the fit does not pool partially or has no such grouping factor.

    References
    ----------
    .. [1] Raudenbush and Bryk (2002), Hierarchical Linear Models, second edition, chapter 3.
    .. [2] Gelman and Hill (2007), Data Analysis Using Regression and Multilevel/Hierarchical
       Models, chapter 12.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.group_weights import weigh_groups
    >>> model = hmlm.Model("log_radon ~ floor + (1 | county)", hmlm.load_dataset("radon"))
    >>> table = weigh_groups(model.fit(hmlm.REML())).sort_values("rows")
    >>> table[["level", "rows", "effective_size", "weight", "prior_rows"]].iloc[[0, -2]].round(2)
          level  rows  effective_size  weight  prior_rows
    50   MURRAY     1            1.00    0.16        5.29
    67  STLOUIS   116            6.02    0.96        5.29
    """
    sizes = design_effect(fit, group, prob, method)
    w = fit.design.weights
    pieces = []
    for parts in variance_parts(fit, method):
        for block in fit.design.blocks:
            if group not in (None, block.group):
                continue
            rho = share_of(parts.groups[block.group], parts.between + parts.residual)
            m = block.sizes.astype(float)
            if w is not None:
                m = np.bincount(block.index, w, len(m)) * np.mean(1.0 / w)
            own = rho[:, None] * m / (1.0 + rho[:, None] * (m - 1.0))
            weights = [spread_of(draws, prob) for draws in (own.mean(axis=1), *own.T)]
            with np.errstate(divide="ignore"):
                others = (1.0 - rho) / rho
            prior = spread_of(others, prob) | {"estimate": float(np.median(others))}
            keys: dict[str, Any] = {
                "component": ["level"] + ["group"] * len(m),
                "group": block.group,
                "level": np.array(["", *block.levels], dtype=object),
                "term": parts.term,
            }
            piece = pd.DataFrame(keys)
            several = {"weight": weights, "prior_rows": [prior] * (len(m) + 1)}
            for name, own_figures in several.items():
                for end, key in (("", "estimate"), ("_lower", "lower"), ("_upper", "upper")):
                    piece[name + end] = np.array([f[key] for f in own_figures])
            pieces.append(piece)
    table = pd.concat(pieces, ignore_index=True)
    names = {"lower": "effective_size_lower", "upper": "effective_size_upper"}
    sizes = sizes.rename(columns=names).drop(columns="design_effect")
    table = table.merge(sizes, on=["group", "level", "term"], how="left", validate="1:1")
    figures = ["effective_size", "weight", "prior_rows"]
    ends = [f"{name}{end}" for name in figures for end in ("", "_lower", "_upper")]
    return table[["component", "group", "level", "term", "rows", *ends, "prob"]]
