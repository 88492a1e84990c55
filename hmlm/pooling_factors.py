"""How far partial pooling pulls each group, and each level of a model, to its common value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse, special

from hmlm.design import Block, Design, Predictor
from hmlm.estimates import term_label
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.links import from_link, link_slope
from hmlm.new_rows import NewRows, new_rows
from hmlm.prediction import family_values, linear_predictors
from hmlm.variance_parts import check_pooled, check_prob, fit_values, outcome_variance, row_sums

MOST_DRAWS = 1_000
MOST_JOINT_DRAWS = 200
MOST_JOINT = 600
MOST_NUMBERS = 2e7
ROW_NUMBERS = 4e6
# Families whose information about the linear predictor of a row has a closed form.
INFORMED = (
    "gaussian",
    "student-t",
    "lognormal",
    "bernoulli",
    "binomial",
    "poisson",
    "negative-binomial",
    "gamma",
    "beta",
    "ordinal",
)


def measure_pooling(fit: Any, prob: float = 0.95) -> pd.DataFrame:
    r"""Return the pooling factors of a fit: 0 where groups stand alone, 1 where they are pooled.

    Of each group's effect k, where the component is ``group``,

    lambda_jk = Var(b_jk | y, theta) / D_kk,

    the share of its prior variance that the data leave it, given the variances and population
    coefficients theta. Of one intercept under a gaussian model it is
    1 - tau^2 / (tau^2 + sigma^2 / n_j); ``weight`` is 1 - lambda, the weight of the group's own
    data, in other words its reliability. ``method`` says how it was found:

    - ``conditional``: classical fits by their conditional variance; draws of a Bayesian fit by the
      exact one of a gaussian model, or by the Fisher information that the rows have at the effects
      of the draw. At most 1,000 draws, evenly spaced, are used (200 where several factors or
      effects are taken together);
    - ``posterior``: Var(b_jk | y) / E(D_kk) over all draws, without an interval, so with what the
      uncertainty of theta adds: where that information has no closed form (zero-inflated, hurdle,
      beta-binomial and categorical models, effects on other parameters) or several factors have
      more than 600 effects in all.

    Of each level, where the component is ``level`` [1]_,

    lambda = 1 - V_j(E(b_jk)) / E(V_j(b_jk)),

    with V_j the variance over the groups and E the mean over the posterior: near 1 the groups'
    effects are mostly noise. A classical fit has both in closed form (given the variances) if it
    has one grouping factor; it is blank otherwise. The level of the rows (``group`` blank, term
    ``residual``) has y - eta in the place of b, in families with such a residual, where the fit has
    the rows.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        A fit under partial pooling.
    prob : float
        Probability of the equal-tailed intervals of draws. Classical fits have none: blank.

    Returns
    -------
    pandas.DataFrame
        Columns ``component, group, level, term, rows, pooling, lower, upper, weight, method,
        prob``.

    Raises
    ------
    HmlmError
        If the fit does not pool partially.

    References
    ----------
    .. [1] Gelman and Pardoe (2006), Bayesian measures of explained variance and pooling in
       multilevel (hierarchical) models, Technometrics 48, 241-251.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.pooling_factors import measure_pooling
    >>> model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    >>> table = measure_pooling(model.fit(hmlm.REML()))
    >>> table[["component", "level", "rows", "pooling", "weight"]].round(3).head(2)
      component level  rows  pooling  weight
    0     level          30    0.217   0.783
    1     group     A     5    0.217   0.783
    """
    check_prob(prob)
    check_pooled(fit, "a pooling factor")
    bayes = isinstance(fit, BayesFit)
    rows = _bayes_pieces(fit, prob) if bayes else _classical_pieces(fit)
    table = pd.concat(rows, ignore_index=True)
    table["weight"] = 1.0 - table["pooling"]
    table["prob"] = prob
    names = ["component", "group", "level", "term", "rows", "pooling", "lower", "upper"]
    return table[[*names, "weight", "method", "prob"]]


def _pieces(
    design: Design, p: Predictor, block: Block, level: np.ndarray, own: np.ndarray, method: str
) -> pd.DataFrame:
    """Return the rows of one factor: level has shape (q,), own (J, q, 3) with its interval."""
    q, J = len(block.columns), len(block.levels)
    terms = [term_label(design, p.name, c) for c in block.columns]
    figures = np.full((q * (J + 1), 3), np.nan)
    figures[:q, 0] = level
    figures[q:] = own.reshape(-1, 3)
    return pd.DataFrame(
        {
            "component": ["level"] * q + ["group"] * (q * J),
            "group": block.group,
            "level": [""] * q + np.repeat(np.asarray(block.levels, dtype=object), q).tolist(),
            "term": terms * (J + 1),
            "rows": np.repeat(np.concatenate([[design.n_rows], block.sizes]), q),
            "pooling": figures[:, 0],
            "lower": figures[:, 1],
            "upper": figures[:, 2],
            "method": [""] * q + [method] * (q * J),
        }
    )


def _classical_pieces(fit: Any) -> list[pd.DataFrame]:
    design: Design = fit.design
    found = []
    for block in design.blocks:
        effects = fit.effects[block.group]
        variance = np.diagonal(effects.covariance, axis1=1, axis2=2)
        D = np.asarray(fit.estimates[f"sd_{block.group}"], dtype=float) ** 2
        # An effect of variance zero is pooled completely.
        own = np.where(D > 0, variance / np.where(D > 0, D, 1.0), 1.0)
        level = np.full(len(D), np.nan)
        if len(design.blocks) == 1:
            between = effects.modes.var(axis=0, ddof=1)
            lead = effects.gain - effects.gain.mean(axis=0)
            moved = np.einsum("jkp,pr,jkr->k", lead, fit.vcov, lead) / (len(block.levels) - 1)
            whole = between + variance.mean(axis=0) + moved
            level = np.where(D > 0, 1.0 - between / np.where(whole > 0, whole, 1.0), 1.0)
        figures = np.full((*own.shape, 3), np.nan)
        figures[..., 0] = own
        found.append(_pieces(design, design.predictors[0], block, level, figures, "conditional"))
    return found


def _bayes_pieces(fit: BayesFit, prob: float) -> list[pd.DataFrame]:
    design = fit.design
    found = []
    family = design.spec.family
    if family.outcome not in ("ordered", "category") and design.cells is None:
        sums = row_sums(fit)
        if np.isfinite(sums.error):
            row: dict[str, Any] = {
                "component": "level",
                "group": "",
                "level": "",
                "term": "residual",
            }
            row |= {"rows": design.n_rows, "pooling": 1.0 - sums.mean_error / sums.error}
            found.append(pd.DataFrame([{**row, "lower": np.nan, "upper": np.nan, "method": ""}]))
    effects = sum(len(b.levels) * len(b.columns) for b in design.blocks)
    informed = family.name in INFORMED and (len(design.blocks) == 1 or effects <= MOST_JOINT)
    conditional = _conditional(fit) if informed else {}
    tails = [0.5 - prob / 2, 0.5 + prob / 2]
    for p in design.predictors:
        for block in p.blocks:
            draws = fit.variable(p.named(f"b_{block.group}"))
            b = draws.reshape(-1, *draws.shape[2:])
            whole = b.var(axis=1, ddof=1).mean(axis=0)
            level = 1.0 - b.mean(axis=0).var(axis=0, ddof=1) / whole
            figures = np.full((*b.shape[1:], 3), np.nan)
            if not p.name and informed:
                own = conditional[block.group]
                figures[..., 0] = own.mean(axis=0)
                figures[..., 1:] = np.moveaxis(np.quantile(own, tails, axis=0), 0, -1)
                method = "conditional"
            else:
                sd = fit.variable(p.named(f"sd_{block.group}"))
                figures[..., 0] = b.var(axis=0, ddof=1) / (sd**2).mean(axis=(0, 1))
                method = "posterior"
            found.append(_pieces(design, p, block, level, figures, method))
    return found


def _conditional(fit: BayesFit) -> dict[str, np.ndarray]:
    """Return Var(b | y, theta) / D of the mean's blocks draw by draw, shape (draws, J, q) each."""
    design = fit.design
    several = len(design.blocks) > 1
    numbers = sum(len(b.levels) * len(b.columns) ** 2 for b in design.blocks)
    most = min(MOST_JOINT_DRAWS if several else MOST_DRAWS, max(50, int(MOST_NUMBERS / numbers)))
    plain = design.spec.family.name in ("gaussian", "lognormal", "student-t") and (
        design.spec.family.link == "identity"
    )
    # Without a need for eta the effects, which may be many, are not drawn.
    posterior = _thinned(fit, most, effects=not plain or bool(design.distributional))
    roots = {b.group: _scaled_root(posterior, b) for b in design.blocks}
    rows = new_rows(design, None, "include", cells=True)
    n, n_draws = len(design.y), len(next(iter(posterior.values())))
    products = None if several else _products(design.blocks[0])
    at_once = max(1, int(ROW_NUMBERS / max(n, numbers)))
    found: dict[str, list[np.ndarray]] = {b.group: [] for b in design.blocks}
    for start in range(0, n_draws, at_once):
        part = slice(start, start + at_once)
        own = {name: draws[part] for name, draws in posterior.items()}
        w = _information(design, own, rows, plain)
        if design.counts is not None:
            w = w * design.counts
        w = np.broadcast_to(w, (len(next(iter(own.values()))), w.shape[-1]))
        root = {group: tuple(r[part] for r in pair) for group, pair in roots.items()}
        made = _joint(design, w, root) if several else _single(design, w, root, products)
        for group, ratio in made.items():
            found[group].append(ratio)
    return {group: np.concatenate(pieces) for group, pieces in found.items()}


def _thinned(fit: BayesFit, most: int, effects: bool) -> dict[str, np.ndarray]:
    draws = fit_values(fit, effects)
    n = len(next(iter(draws.values())))
    chosen = np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))
    return {name: values[chosen] for name, values in draws.items()}


def _scaled_root(posterior: Mapping[str, np.ndarray], block: Block) -> tuple[np.ndarray, ...]:
    """Return K and diag(sd) K with K K' the correlations, shape (draws, q, q) each.

    Ratios to the prior variance are then found without a division by it.
    """
    sd = posterior[f"sd_{block.group}"]
    K = np.broadcast_to(np.eye(sd.shape[-1]), (*sd.shape, sd.shape[-1]))
    if block.correlated:
        K = np.linalg.cholesky(posterior[f"cor_{block.group}"])
    return K, sd[:, :, None] * K


def _products(block: Block) -> sparse.csr_array:
    """Return z z' of every row at the place of its level, shape (N, J q q)."""
    n, q = block.Z.shape
    values = (block.Z[:, :, None] * block.Z[:, None, :]).ravel()
    columns = block.index[:, None] * q * q + np.arange(q * q)
    at = np.repeat(np.arange(n), q * q)
    return sparse.csr_array((values, (at, columns.ravel())), (n, len(block.levels) * q * q))


def _single(
    design: Design, w: np.ndarray, root: Mapping[str, tuple[np.ndarray, ...]], products: Any
) -> dict[str, np.ndarray]:
    """Var(b_j) / D for one factor: K (I + L'Z'WZ L)^-1 K' has it on its diagonal, L = sd K."""
    (block,) = design.blocks
    (K, L), q, J = root[block.group], len(block.columns), len(block.levels)
    # Where all rows say as much, their sum is taken once.
    A = w * products.sum(axis=0) if w.shape[1] == 1 else w @ products
    A = A.reshape(len(w), J, q, q)
    H = np.eye(q) + np.einsum("slk,sjlm,smn->sjkn", L, A, L, optimize=True)
    return {block.group: np.einsum("skl,sjlm,skm->sjk", K, np.linalg.inv(H), K, optimize=True)}


def _joint(
    design: Design, w: np.ndarray, root: Mapping[str, tuple[np.ndarray, ...]]
) -> dict[str, np.ndarray]:
    """Return the same for several factors, whose effects are taken together."""
    shapes = {b.group: (len(b.levels), len(b.columns)) for b in design.blocks}
    found = {group: np.empty((len(w), *shape)) for group, shape in shapes.items()}
    n = len(design.y)
    for s in range(len(w)):
        pieces = []
        for block in design.blocks:
            (J, q), L = shapes[block.group], root[block.group][1][s]
            columns = block.index[:, None] * q + np.arange(q)
            at = np.repeat(np.arange(n), q)
            pieces.append(
                sparse.csr_array(((block.Z @ L).ravel(), (at, columns.ravel())), (n, J * q))
            )
        Z = sparse.hstack(pieces, format="csr")
        H = (Z.T @ (Z * w[s][:, None])).toarray()
        H[np.diag_indices(len(H))] += 1.0
        inverse, start = np.linalg.inv(H), 0
        for group, (J, q) in shapes.items():
            own = inverse[start : start + J * q, start : start + J * q].reshape(J, q, J, q)
            own = own[np.arange(J), :, np.arange(J), :]
            K = root[group][0][s]
            found[group][s] = np.einsum("kl,jlm,km->jk", K, own, K)
            start += J * q
    return found


def _information(
    design: Design, own: Mapping[str, np.ndarray], rows: NewRows, plain: bool
) -> np.ndarray:
    """Return the Fisher information of every row about its linear predictor.

    Shape (draws, N), with an axis of one where it is the same in all draws or rows.
    """
    family = design.spec.family
    weights = 1.0 if design.weights is None else design.weights
    if plain and not design.distributional:
        sigma2 = own["sigma"][:, None] ** 2 if "sigma" in own else 1.0
        heavy = (own["nu"][:, None] + 1) / (own["nu"][:, None] + 3) if "nu" in own else 1.0
        return np.atleast_2d(np.asarray(heavy * weights / sigma2))
    etas = linear_predictors(design, own, rows, slice(0, len(design.y)))
    values = family_values(design, own, etas)
    slope = link_slope(family.link, etas[0])
    if family.name == "ordinal":
        return _ordinal_information(family.link, etas[0], own["cutpoints"])
    if family.name in ("gaussian", "lognormal", "student-t"):
        nu = values.get("nu", np.inf)
        heavy = 1.0 if np.isinf(nu).all() else (nu + 1) / (nu + 3)
        return np.asarray(heavy * weights * slope**2 / values["sigma"] ** 2)
    if family.name == "beta":
        mu, phi = from_link(family.link, etas[0]), values["phi"]
        curve = special.polygamma(1, mu * phi) + special.polygamma(1, (1 - mu) * phi)
        return np.asarray((phi * slope) ** 2 * curve)
    V = outcome_variance(family, etas[0], values)
    with np.errstate(divide="ignore", invalid="ignore"):
        one = np.where(slope == 0, 0.0, slope**2 / V)
    return np.asarray(one * (1.0 if design.trials is None else design.trials))


def _ordinal_information(link: str, eta: np.ndarray, cutpoints: np.ndarray) -> np.ndarray:
    """Sum over categories of (dp/deta)^2 / p."""
    place = cutpoints[:, None, :] - eta[..., None]
    edge = np.zeros((*eta.shape, 1))
    p = np.diff(np.concatenate([edge, from_link(link, place), edge + 1.0], axis=-1), axis=-1)
    slope = np.diff(np.concatenate([edge, link_slope(link, place), edge], axis=-1), axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(p > 0, slope**2 / p, 0.0).sum(axis=-1))
