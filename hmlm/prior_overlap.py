"""Correlations beside their prior: whether the data said anything about them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from hmlm.errors import HmlmError
from hmlm.estimates import find_effects, term_label
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.variance_parts import check_prob, spread_of


def correlation_evidence(
    fit: BayesFit, prob: float = 0.95, threshold: float = 0.35
) -> pd.DataFrame:
    """Put the posterior of every correlation beside its prior, to see whether the data moved it.

    A correlation in a matrix of d effects with an LKJ(eta) prior has (r + 1) / 2 ~ beta(a, a),
    a = eta - 1 + d / 2 [1]_. The overlap of prior and posterior is the area under the lower of
    their densities [2]_, the latter by a kernel estimate that is reflected at the ends.

    Parameters
    ----------
    fit : BayesFit
        A fit with correlated effects.
    prob : float
        Probability of the intervals.
    threshold : float
        Largest overlap of a correlation that the data have moved: 0.35 in [2]_.

    Returns
    -------
    pandas.DataFrame
        Columns ``group, term, estimate, std_error, lower, upper, prior_std_error, prior_lower,
        prior_upper, positive`` (probability that the correlation is above zero), ``overlap``,
        ``moved`` (overlap below the threshold) and ``prob``.

    Raises
    ------
    HmlmError
        If the fit is classical, so that it has no prior, or has no correlation.

    References
    ----------
    .. [1] Lewandowski, Kurowicka and Joe (2009), Generating random correlation matrices based on
       vines and extended onion method, Journal of Multivariate Analysis 100, 1989-2001.
    .. [2] Garrett and Zeger (2000), Latent class model diagnosis, Biometrics 56, 1055-1067.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.prior_overlap import correlation_evidence
    >>> model = hmlm.Model("Reaction ~ Days + (Days | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> fit = model.fit(hmlm.NUTS(draws=300), random_seed=1, progressbar=False)
    >>> table = correlation_evidence(fit)
    >>> table[["term", "prior_lower", "prior_upper", "moved"]].round(2)
                  term  prior_lower  prior_upper  moved
    0  Intercept, Days        -0.81         0.81  False
    """
    check_prob(prob)
    if not isinstance(fit, BayesFit):
        raise HmlmError(f"{fit.label} has no priors: fit the model by hmlm.NUTS() to compare.")
    design, rows = fit.design, []
    tails = [0.5 - prob / 2, 0.5 + prob / 2]
    for variable in (v for v in design.variables if v.kind == "cor"):
        block = find_effects(design, variable)
        own = fit.priors.predictor(variable.predictor)
        eta = own.cor[variable.group].parameters["eta"]
        draws = fit.variable(variable.name)
        names = [term_label(design, variable.predictor, c) for c in block.columns]
        for part in block.slices:
            a = eta - 1.0 + (part.stop - part.start) / 2
            prior = stats.beta(a, a, loc=-1.0, scale=2.0)
            low, high = prior.ppf(tails)
            for i in range(part.start, part.stop):
                for j in range(i + 1, part.stop):
                    r = draws[..., i, j].ravel()
                    overlap = _overlap(prior.cdf(r))
                    row: dict[str, object] = {
                        "group": variable.group,
                        "term": f"{names[i]}, {names[j]}",
                    }
                    row |= spread_of(r, prob)
                    row |= {"prior_std_error": float(prior.std())}
                    row |= {"prior_lower": float(low), "prior_upper": float(high)}
                    row |= {"positive": float((r > 0).mean()), "overlap": overlap}
                    rows.append({**row, "moved": overlap < threshold, "prob": prob})
    if not rows:
        raise HmlmError(
            f"'{design.spec.formula}' has no correlated effects: write (x | group) for them."
        )
    return pd.DataFrame(rows)


def _overlap(u: np.ndarray) -> float:
    """Return the area under the lower of a density on (0, 1), known by draws, and of one."""
    quarter = np.subtract(*np.quantile(u, [0.75, 0.25])) / 1.34
    spread = min(u.std(ddof=1), quarter) or u.std(ddof=1)
    if not spread > 0:
        return 0.0
    width = 0.9 * spread * len(u) ** -0.2
    edges = np.linspace(0.0, 1.0, 401)
    # The share of the smoothed draws that falls into each cell, with its mirror images.
    below = sum(
        sign * stats.norm.cdf((edges[:, None] - place) / width).mean(axis=1)
        for sign, place in ((1, u), (1, -u), (1, 2.0 - u))
    )
    return float(np.minimum(np.diff(below), np.diff(edges)).sum())
