"""Draws from the prior: of every variable of a model, and of outcomes that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hmlm.blocks import Block, Predictor
from hmlm.default_priors import PredictorPriors, ResolvedPriors
from hmlm.design import Design
from hmlm.errors import HmlmError
from hmlm.expectation import category_probabilities, draw_outcomes
from hmlm.links import from_link, to_link
from hmlm.new_rows import NewRows, new_rows
from hmlm.prediction import family_values, linear_predictors
from hmlm.prior_distributions import draw_correlations, draw_prior
from hmlm.priors import Prior
from hmlm.version import __version__

if TYPE_CHECKING:
    import xarray as xr

LARGEST = 2**28
_ROWS_AT_ONCE = 1_000
# Links of a mean stay within these, so that no mean is zero or infinite in floating point.
_BOUNDS = {"log": 34.0, "logit": 700.0, "probit": 37.0, "cloglog": 700.0}


def draw_priors(
    design: Design,
    priors: ResolvedPriors,
    draws: int = 1000,
    random_seed: int | None = None,
) -> dict[str, np.ndarray]:
    """Draw every variable of a model from its prior.

    Parameters
    ----------
    design : Design
        The model.
    priors : ResolvedPriors
        The prior of every parameter.
    draws : int
        Number of draws.
    random_seed : int, optional
        Seed.

    Returns
    -------
    dict of str to ndarray
        For each variable of ``design.variables`` its draws, shape (draws, ...). Coefficients are
        those of the formula: where the prior of the intercept is on the outcome at the average of
        the predictors, the intercept at x = 0 follows from it and the slopes. Group effects are
        drawn from N(0, D), with the sds and correlations of the same draw.

    Raises
    ------
    PriorError
        If a prior is flat or half-flat, so that it has no draws.
    HmlmError
        If `draws` is no positive whole number, or the draws would take more than 2 GiB.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.default_priors import resolve_priors
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> design = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).design
    >>> drawn = draw_priors(design, resolve_priors(design), draws=100, random_seed=1)
    >>> {name: values.shape for name, values in drawn.items()}
    {'beta': (100, 2), 'sd_Subject': (100, 2), 'cor_Subject': (100, 2, 2), 'sigma': (100,),\
 'b_Subject': (100, 18, 2)}
    """
    levels = {b.group: len(b.levels) for p in design.predictors for b in p.blocks}
    return draw_variables(design, priors, draws, np.random.default_rng(random_seed), levels)


def draw_variables(
    design: Design,
    priors: ResolvedPriors,
    draws: int,
    rng: np.random.Generator,
    levels: Mapping[str, int],
) -> dict[str, np.ndarray]:
    """Draw as `draw_priors` does, with effects of that many levels of each grouping factor.

    Parameters
    ----------
    design, priors, draws
        As in `draw_priors`.
    rng : numpy.random.Generator
        Source of the random numbers.
    levels : mapping of str to int
        For each grouping factor the number of its levels whose effects are drawn.
    """
    check_draws(draws)
    for p in design.predictors:
        for block in p.blocks:
            check_size(draws * levels[block.group] * len(block.columns), f"b_{block.group}")
    found: dict[str, np.ndarray] = {}
    for p in design.predictors:
        own = priors.predictor(p.name)
        if p.terms:
            found[p.named("beta")] = _coefficients(p, own, draws, rng)
    if priors.cutpoints is not None:
        found["cutpoints"] = _cutpoints(design, priors, draws, rng, found.get("beta"))
    for name in design.parameters:
        found[name] = draw_prior(priors.parameters[name], rng, (draws,), name)
    for p in design.predictors:
        for block in p.blocks:
            own = priors.predictor(p.name)
            _effects(design, p, block, own, draws, rng, levels[block.group], found)
    return {name: found[name] for name in design.dims}


def check_draws(draws: Any) -> None:
    """Raise an HmlmError where a number of draws is no positive whole number."""
    if not isinstance(draws, (int, np.integer)) or isinstance(draws, bool) or draws < 1:
        raise HmlmError(f"draws must be a positive whole number, not {draws!r:.40}.")


def check_size(size: int, name: str) -> None:
    """Raise an HmlmError where draws of one variable would take more than 2 GiB."""
    if size > LARGEST:
        raise HmlmError(
            f"the draws of '{name}' would take {size * 8 / 2**30:,.0f} GiB: ask for fewer, "
            "as draws=100."
        )


def _columns(
    priors: tuple[Prior, ...],
    names: tuple[str, ...],
    shape: tuple[int, ...],
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw a column for each prior."""
    out = np.empty((*shape, len(priors)))
    for k, (prior, name) in enumerate(zip(priors, names, strict=True)):
        out[..., k] = draw_prior(prior, rng, shape, name)
    return out


def _coefficients(
    p: Predictor, own: PredictorPriors, draws: int, rng: np.random.Generator
) -> np.ndarray:
    beta = _columns(own.beta, tuple(p.named(t) for t in p.terms), (draws,), rng)
    return np.asarray(beta - own.constant * (beta @ own.x_means)[:, None])


def _cutpoints(
    design: Design,
    priors: ResolvedPriors,
    draws: int,
    rng: np.random.Generator,
    beta: np.ndarray | None,
) -> np.ndarray:
    assert priors.cutpoints is not None
    K = len(design.categories)
    cut = np.sort(draw_prior(priors.cutpoints, rng, (draws, K - 1), "cutpoints"), axis=1)
    return cut if beta is None else cut + (beta @ priors.x_means)[:, None]


def _effects(
    design: Design,
    p: Predictor,
    block: Block,
    own: PredictorPriors,
    draws: int,
    rng: np.random.Generator,
    J: int,
    found: dict[str, np.ndarray],
) -> None:
    """Add sds, correlations and effects of one grouping factor to what was drawn."""
    group, q = block.group, len(block.columns)
    if design.spec.pooling == "none":
        names = tuple(p.named(f"b_{group}[{c}]") for c in block.columns)
        found[p.named(f"b_{group}")] = _columns(own.b[group], names, (draws, J), rng)
        return
    names = tuple(p.named(f"sd_{group}[{c}]") for c in block.columns)
    sd = _columns(own.sd[group], names, (draws,), rng)
    L = np.broadcast_to(np.eye(q), (draws, q, q)).copy()
    if block.correlated:
        eta = own.cor[group].parameters["eta"]
        for part in block.slices:
            size = part.stop - part.start
            L[:, part, part] = draw_correlations(eta, size, rng, (draws,))
        R = L @ L.swapaxes(1, 2)
        R[:, np.arange(q), np.arange(q)] = 1.0
        found[p.named(f"cor_{group}")] = R
    found[p.named(f"sd_{group}")] = sd
    z = rng.standard_normal((draws, J, q))
    found[p.named(f"b_{group}")] = np.einsum("skl,sjl->sjk", sd[:, :, None] * L, z)


def subset_rows(design: Design, chosen: np.ndarray) -> tuple[NewRows, dict[str, int]]:
    """Return some rows of a design with the levels among them renumbered, and how many there are.

    Parameters
    ----------
    design : Design
        The model.
    chosen : ndarray of int
        Positions of the rows.

    Returns
    -------
    NewRows, dict of str to int
        The rows; for each grouping factor the number of levels among them, whose effects
        `draw_variables` draws.
    """
    whole = new_rows(design, None, "include")
    levels: dict[str, int] = {}
    predictors = []
    for p, arrays in zip(design.predictors, whole.predictors, strict=True):
        index = []
        for block, own in zip(p.blocks, arrays.index, strict=True):
            kept, renumbered = np.unique(own[chosen], return_inverse=True)
            levels[block.group] = len(kept)
            index.append(renumbered)
        predictors.append(
            replace(
                arrays,
                X=arrays.X[chosen],
                offset=arrays.offset[chosen],
                Z=tuple(z[chosen] for z in arrays.Z),
                index=tuple(index),
                new_index=tuple(index),
            )
        )
    rows = replace(
        whole,
        predictors=tuple(predictors),
        trials=None if whole.trials is None else whole.trials[chosen],
        weights=None if whole.weights is None else whole.weights[chosen],
    )
    return rows, levels


def outcomes_of(
    design: Design, drawn: Mapping[str, np.ndarray], rows: NewRows, rng: np.random.Generator
) -> np.ndarray:
    """Draw outcomes in some rows from draws of every variable.

    Parameters
    ----------
    design : Design
        The model.
    drawn : mapping of str to ndarray
        Draws of every variable, the draw on the first axis.
    rows : NewRows
        The rows.
    rng : numpy.random.Generator
        Source of the random numbers.

    Returns
    -------
    ndarray, shape (draws, rows)
        Outcomes; codes from 0 of categories. Blank where a draw has a mean that the family cannot
        have, such as a negative one of counts with an identity link.
    """
    n_draws = len(next(iter(drawn.values())))
    out = np.empty((n_draws, rows.size))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for start in range(0, rows.size, _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            etas = linear_predictors(design, drawn, rows, part)
            out[:, part] = _outcomes(design, drawn, etas, rows, part, rng)
    return out


def _outcomes(
    design: Design,
    drawn: Mapping[str, np.ndarray],
    etas: list[np.ndarray],
    rows: NewRows,
    part: slice,
    rng: np.random.Generator,
) -> np.ndarray:
    family = design.spec.family
    if family.outcome in ("ordered", "category"):
        cuts = drawn["cutpoints"][:, None] if family.outcome == "ordered" else None
        p = category_probabilities(family, etas, cuts)
        u = rng.random(p.shape[:-1])
        code = (u[..., None] > np.cumsum(p, axis=-1)).sum(axis=-1)
        return np.minimum(code, p.shape[-1] - 1).astype(float)
    bound = _BOUNDS.get(family.link, np.inf)
    eta = np.clip(etas[0], -bound, bound)
    possible = np.ones(eta.shape, dtype=bool)
    if family.outcome in ("count", "positive") and family.name != "lognormal":
        mu = from_link(family.link, eta)
        possible = np.isfinite(mu) & (mu > 0)
        eta = np.where(possible, eta, to_link(family.link, max(float(design.y.mean()), 1e-3)))
    values = family_values(design, drawn, [eta, *etas[1:]])
    values = {name: _bounded(name, v) for name, v in values.items()}
    found = draw_outcomes(
        family,
        eta,
        values,
        rng,
        None if rows.trials is None else rows.trials[part],
        None if rows.weights is None else rows.weights[part],
    )
    return np.where(possible, found, np.nan)


def _bounded(name: str, values: np.ndarray) -> np.ndarray:
    """Keep a parameter off zero and infinity, where floating point has no outcomes to draw."""
    ends = {"nu": (1e-2, 1e12), "sigma": (0.0, 1e150), "zi": (0.0, 1.0), "hu": (0.0, 1.0)}
    return np.clip(values, *ends.get(name, (1e-6, 1e12)))


def draw_prior_predictive(
    model: Any, draws: int = 500, random_seed: int | None = None
) -> xr.DataTree:
    """Draw parameters from the prior and outcomes from them, before any look at the outcome.

    Parameters
    ----------
    model : Model
        The model.
    draws : int
        Number of draws.
    random_seed : int, optional
        Seed.

    Returns
    -------
    xarray.DataTree
        Groups ``prior`` (every variable), ``prior_predictive`` (``y``, with the dimensions chain,
        draw and row) and ``observed_data``, as ArviZ takes them. Outcomes of categories are codes
        from 0. Where a draw gives a mean that the family cannot have (counts or positive outcomes
        under an identity or inverse link) the outcome is blank; the attribute ``impossible`` of
        ``prior_predictive`` says in which share of outcomes.

    Raises
    ------
    PriorError
        If a prior is flat or half-flat.
    HmlmError
        If the draws would take more than 2 GiB.

    Notes
    -----
    Prior predictive checks judge priors where they meet, on the scale of the outcome
    (Gabry, Simpson, Vehtari, Betancourt and Gelman 2019, Visualization in Bayesian workflow,
    Journal of the Royal Statistical Society A 182, 389-402, section 3). Means under a
    log link are kept below exp(34), which is more than any data hold.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.prior_draws import draw_prior_predictive
    >>> model = hmlm.Model("Reaction ~ Days + (Days | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> tree = draw_prior_predictive(model, draws=100, random_seed=1)
    >>> sorted(tree.children), tree["prior_predictive"]["y"].shape
    (['observed_data', 'prior', 'prior_predictive'], (1, 100, 180))
    """
    import xarray as xr

    design = model.design
    check_draws(draws)
    check_size(draws * len(design.y), "y")
    drawn = draw_priors(design, model._resolved(), draws, random_seed)
    # Outcomes have a stream of their own: parameters are the same as those of `draw_priors`.
    rng = np.random.default_rng(None if random_seed is None else [random_seed, 1])
    y = outcomes_of(design, drawn, new_rows(design, None, "include"), rng)
    attrs = {
        **{"creation_library": "hmlm", "creation_library_version": __version__},
        "formula": design.spec.formula,
        "random_seed": str(random_seed),
        "sample_dims": ["chain", "draw"],
    }
    base = {"chain": np.arange(1), "draw": np.arange(draws)}
    used = {d for ds in design.dims.values() for d in ds}
    coords = {**base, **{d: _plain(v) for d, v in design.coords.items() if d in used}}
    row = np.asarray(design.coords["row"])
    prior = {n: (("chain", "draw", *d), drawn[n][None]) for n, d in design.dims.items()}
    return xr.DataTree.from_dict(
        {
            "prior": xr.Dataset(prior, coords=coords, attrs=attrs),
            "prior_predictive": xr.Dataset(
                {"y": (("chain", "draw", "row"), y[None])},
                coords={**base, "row": row},
                attrs={**attrs, "impossible": float(np.isnan(y).mean())},
            ),
            "observed_data": xr.Dataset(
                {"y": (("row",), design.y)}, coords={"row": row}, attrs=attrs
            ),
        }
    )


def _plain(values: Any) -> np.ndarray:
    """Coordinates as plain numbers or text, so that draws can be saved."""
    array = np.asarray(values)
    return array.astype(str) if array.dtype == object else array
