"""Priors said as what they imply: shares of variance, ratios between groups, expected outcomes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from hmlm.design import Design
from hmlm.errors import HmlmError
from hmlm.implied_quantities import (
    Implied,
    effect_correlations,
    group_contrasts,
    outcomes_outside,
    typical_outcomes,
    variance_shares,
    write_number,
)
from hmlm.new_rows import NewRows
from hmlm.prior_draws import check_draws, draw_variables, outcomes_of, subset_rows

MOST_ROWS = 100


def imply_priors(
    model: Any, prob: float = 0.9, draws: int = 4000, random_seed: int | None = None
) -> pd.DataFrame:
    r"""Say the priors of a model as what they imply together.

    Parameters
    ----------
    model : Model
        The model.
    prob : float
        Probability of the equal-tailed intervals.
    draws : int
        Number of draws from the prior.
    random_seed : int, optional
        Seed.

    Returns
    -------
    pandas.DataFrame
        One row a quantity, with the columns ``quantity, group, term, median, lower, upper, prob,
        sentence``:

        - ``ICC``: share of a grouping factor in the variance that predictors leave. On the latent
          scale under logit (residual variance pi^2/3), probit (1) and cloglog (pi^2/6) links;
          under a log link by the lognormal approximation [1]_. With slopes, the variance of a
          factor is the average of z'Dz over the rows [2]_. Its residual variance is that of
          `hmlm.variance.split_variance`;
        - ``median ratio``: the median of the ratio of two groups drawn at random, the higher to
          the lower, exp(sqrt(2) Phi^-1(0.75) tau): under a logit link the median odds ratio [3]_;
          ``median difference`` where the link is no log, logit or cloglog;
        - ``90th to 10th percentile ratio`` (or ``difference``) of the groups:
          exp(2 Phi^-1(0.9) tau). In both tau^2 is the variance between groups at the average of
          the predictors;
        - ``correlation`` of two effects;
        - ``expected outcome`` (or ``probability``) in a group with effects of zero, at the average
          of the predictors; without pooling, in a group with coefficients of its own;
        - ``outside the observed range``: probability that a new outcome is below the smallest or
          above the largest observed one (of trials: never, so left out); ``below zero`` where all
          outcomes are positive and the family does not know. Median and interval are over draws
          of the parameters, and the sentence has the average;
        - ``impossible mean``: of counts or positive outcomes whose link lets the mean be negative.

        Outcomes are those of at most 100 rows, drawn at random.

    Raises
    ------
    PriorError
        If a prior is flat or half-flat, so that it implies nothing that can be drawn.
    HmlmError
        If `prob` is not between 0 and 1.

    References
    ----------
    .. [1] Nakagawa, Johnson and Schielzeth (2017), The coefficient of determination R2 and
       intra-class correlation coefficient from generalized linear mixed-effects models revisited
       and expanded, Journal of the Royal Society Interface 14, 20170213, equations 2.5 to 2.14.
    .. [2] Johnson (2014), Extension of Nakagawa & Schielzeth's R2GLMM to random slopes models,
       Methods in Ecology and Evolution 5, 944-946.
    .. [3] Larsen and Merlo (2005), Appropriate assessment of neighborhood effects on individual
       health, American Journal of Epidemiology 161, 81-88.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.implied_priors import imply_priors
    >>> model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    >>> table = imply_priors(model, random_seed=1)
    >>> print(table["sentence"][0])
    Groups of 'Batch' hold 0.47 of the variance that predictors leave (90%: 0.00 to 0.99).
    """
    if not 0 < prob < 1:
        raise HmlmError(f"prob must lie between 0 and 1, not {prob}.")
    check_draws(draws)
    design = model.design
    priors = model._resolved()
    n = len(design.y)
    rng = np.random.default_rng(random_seed)
    rows, levels = subset_rows(design, np.sort(rng.permutation(n)[:MOST_ROWS]))
    drawn = draw_variables(design, priors, draws, rng, levels)
    small = _on_rows(design, rows)
    with np.errstate(all="ignore"):
        found = [
            *variance_shares(design, small, drawn, draws),
            *group_contrasts(design, drawn),
            *effect_correlations(design, drawn),
            *typical_outcomes(design, drawn),
            *outcomes_outside(design, outcomes_of(design, drawn, rows, rng)),
        ]
    return pd.DataFrame([_row(f, prob) for f in found])


def _row(found: Implied, prob: float) -> dict[str, object]:
    known = found.values[~np.isnan(found.values)]
    figures = [np.nan] * 3
    if len(known):
        tails = [0.5, 0.5 - prob / 2, 0.5 + prob / 2]
        figures = [float(v) for v in np.quantile(known, tails, method="closest_observation")]
    written = [write_number(v, found.form) for v in figures]
    ending = f" ({prob:.0%}: {written[1]} to {written[2]})."
    return {
        "quantity": found.quantity,
        "group": found.group,
        "term": found.term,
        **dict(zip(("median", "lower", "upper"), figures, strict=True)),
        "prob": prob,
        "sentence": found.words.replace("{median}", written[0]) + ending,
    }


def _on_rows(design: Design, rows: NewRows) -> Design:
    """Return a design whose arrays are those of some rows, for sums over rows."""
    parts = []
    for p, arrays in zip(design.predictors, rows.predictors, strict=True):
        blocks = tuple(
            replace(b, Z=z, index=i)
            for b, z, i in zip(p.blocks, arrays.Z, arrays.index, strict=True)
        )
        offset = None if p.offset is None else arrays.offset
        parts.append(replace(p, X=arrays.X, blocks=blocks, offset=offset))
    mean, *others = parts
    return replace(
        design,
        y=np.zeros(rows.size),
        X=mean.X,
        blocks=mean.blocks,
        offset=mean.offset,
        weights=rows.weights,
        trials=rows.trials,
        distributional=tuple(others),
    )
