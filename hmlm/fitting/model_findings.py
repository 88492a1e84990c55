"""What model and data say about a posterior that is hard to sample: columns, groups, priors."""

from __future__ import annotations

from typing import Any

import numpy as np

from hmlm.design import Block, Design, Predictor
from hmlm.errors import counted, listed
from hmlm.estimates import find_effects, term_label
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.given_parameters import number_names
from hmlm.prior_distributions import draw_prior, prior_quantile

FAR_FROM_ZERO = 2.0
CORRELATED = 0.7
AS_WIDE = 0.8
FEW_GROUPS = 0.1


def far_from_zero(fit: BayesFit, p: Predictor) -> list[Any]:
    """Return predictors to be centred: far from zero, with a slope correlated with the intercept.

    With x far from zero the intercept is an extrapolation, and intercepts and slopes of groups
    have to be correlated for lines to meet where the data are.
    """
    if fit.design.spec.pooling != "partial":
        return []
    rows = []
    for variable in fit.design.variables:
        if variable.kind != "cor" or variable.predictor != p.name:
            continue
        block: Block = find_effects(fit.design, variable)
        if "Intercept" not in block.columns:
            continue
        first = block.columns.index("Intercept")
        cor = fit.variable(variable.name).mean(axis=(0, 1))
        for k, column in enumerate(block.columns):
            own = block.spread
            mean, sd = float(own.mean[k]), float(np.sqrt(own.variance[k]))
            indicator = abs(sd**2 - mean * (1.0 - mean)) < 1e-9  # of values of zero and one
            if k == first or sd == 0 or indicator:
                continue
            ratio, r = mean / sd, float(cor[first, k])
            if abs(ratio) > FAR_FROM_ZERO and abs(r) > CORRELATED:
                rows.append(
                    (
                        "predictor far from zero",
                        term_label(fit.design, p.name, column),
                        f"Its mean is {mean:.4g}, {abs(ratio):.1f} sds from zero, and its "
                        f"slope has correlation {r:.2f} with the intercept between the groups of "
                        f"'{block.group}'.",
                        f"Centre it: fit with {column} - {mean:.4g} in its place.",
                        abs(ratio),
                    )
                )
    return rows


def separation(design: Design) -> list[Any]:
    """Return what separates yes from no: predictors, and groups with only one of the two."""
    from hmlm.likelihoods.exponential import SUPPORTED, row_likelihood
    from hmlm.likelihoods.scoring import Predictors, least_squares
    from hmlm.likelihoods.separation import extremes, separated_rows

    family = design.spec.family
    if family.name not in SUPPORTED:
        return []
    ends = extremes(row_likelihood(family, design.y, design.trials, counts=design.counts))
    if ends is None:
        return []
    rows: list[Any] = []
    n = len(design.y)
    offset = np.zeros(n)
    if design.terms:
        out = separated_rows(ends, Predictors(X=design.X, offset=offset))
        if out.any():
            left = Predictors(X=design.X[~out], offset=offset[~out])
            size = len(left.offset)
            lost = (
                ~least_squares(left, np.ones(size), np.zeros(size)).estimable
                if size
                else np.ones(len(design.terms), dtype=bool)
            )
            terms = listed(t for t, gone in zip(design.terms, lost, strict=True) if gone)
            rows.append(
                (
                    "separation by a predictor",
                    terms,
                    f"{counted(design.rows_in(out), 'row')} of {design.n_rows:,} can be predicted "
                    "perfectly: the likelihood alone would send these coefficients to infinity.",
                    "Give them a prior tighter than the default, such as hmlm.Prior('normal', "
                    "mu=0, sigma=2.5), merge levels, or leave the predictor out.",
                    design.rows_in(out) / design.n_rows,
                )
            )
    for block in design.blocks:
        count = block.sizes
        J = len(count)
        often = design.row_weights
        low = np.bincount(block.index, ends.low * often, J) == count
        high = np.bincount(block.index, ends.high * often, J) == count
        share = float((low | high).mean())
        if share < FEW_GROUPS:
            continue
        only = [f"{w} in {counted(int(s.sum()), 'group')}" for w, s in _words(family, low, high)]
        example = listed(block.levels[low | high], 3)
        rows.append(
            (
                "groups without variation",
                block.group,
                f"The outcomes are {' and '.join(only)} of {J:,} ({example}): these groups say "
                "only that their effect is beyond the others'.",
                "A prior on the sd of this group's effects decides how far; check it, and do not "
                "centre effects of groups that say so little.",
                share,
            )
        )
    return rows


def _words(family: Any, low: np.ndarray, high: np.ndarray) -> list[tuple[str, np.ndarray]]:
    ends = [("all 0", low), ("all 1" if family.outcome == "binary" else "all successes", high)]
    return [(word, which) for word, which in ends if which.any()]


def prior_alone(fit: BayesFit, names: list[str], draws: np.ndarray) -> list[Any]:
    """Return parameters whose posterior is as wide as their prior."""
    priors = _prior_widths(fit)
    rows = []
    for k, name in enumerate(names):
        wide = priors.get(name)
        low, high = np.quantile(draws[:, :, k], [0.25, 0.75])
        if wide and (high - low) > AS_WIDE * wide:
            ratio = (high - low) / wide
            rows.append(
                (
                    "posterior as wide as the prior",
                    name,
                    f"Half of the posterior lies within {high - low:.3g}, half of the prior within "
                    f"{wide:.3g}.",
                    "The data say next to nothing about it: its prior is the answer. Choose that "
                    "prior with care, or drop the term.",
                    float(ratio),
                )
            )
    return rows


def _prior_widths(fit: BayesFit) -> dict[str, float]:
    """Return the interquartile range of the prior of every number that has one of its own."""
    from scipy.stats import beta as beta_distribution

    design, priors = fit.design, fit.priors
    found: dict[str, float] = {}

    def width(prior: Any) -> float:
        if prior.name in ("flat", "half-flat"):
            return np.inf
        low, high = prior_quantile(prior, [0.25, 0.75])
        return float(high - low)

    for variable in design.variables:
        if variable.kind in ("group", "cutpoint"):
            continue
        own = priors.predictor(variable.predictor)
        names = number_names(design, variable)
        if variable.kind == "parameter":
            found[variable.name] = width(priors.parameters[variable.name])
        elif variable.kind == "sd":
            for (name, _), prior in zip(names, own.sd[variable.group], strict=True):
                found[name] = width(prior)
        elif variable.kind == "cor":
            block = find_effects(design, variable)
            for name, (i, _) in names:
                size = next(s.stop - s.start for s in block.slices if s.start <= i < s.stop)
                a = own.cor[variable.group].parameters["eta"] - 1 + size / 2
                found[name] = float(2 * np.diff(beta_distribution(a, a).ppf([0.25, 0.75]))[0])
        else:
            found |= _coefficient_widths([name for name, _ in names], own)
    return {name: w for name, w in found.items() if np.isfinite(w)}


def _coefficient_widths(names: list[str], own: Any) -> dict[str, float]:
    """Return those of coefficients, which a centred intercept mixes: by draws."""
    if any(prior.name == "flat" for prior in own.beta):
        return {}
    rng = np.random.default_rng(1)
    beta = np.column_stack([draw_prior(prior, rng, (4000,)) for prior in own.beta])
    beta = beta - own.constant * (beta @ own.x_means)[:, None]
    low, high = np.quantile(beta, [0.25, 0.75], axis=0)
    return dict(zip(names, (high - low).tolist(), strict=True))
