"""Predictions for the rows of a fit and for new rows and groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from hmlm.design import Design
from hmlm.errors import HmlmError
from hmlm.expectation import category_probabilities, draw_outcomes, expected_outcome
from hmlm.families import PARAMETERS
from hmlm.links import from_link, link_slope
from hmlm.new_rows import Groups, NewRows, new_rows

if TYPE_CHECKING:
    import pandas as pd

    from hmlm.estimates import Fit

Kind = Literal["mean", "linear", "response"]
ROWS_AT_ONCE = 1_000


def _check_request(kind: str, groups: str, prob: float) -> None:
    if kind not in get_args(Kind):
        raise HmlmError(f"kind is 'mean', 'linear' or 'response', not {kind!r}.")
    if groups not in get_args(Groups):
        raise HmlmError(f"groups is 'include', 'population' or 'new', not {groups!r}.")
    if not 0 < prob < 1:
        raise HmlmError(f"prob must lie between 0 and 1, not {prob}.")


def _covariance(estimates: Any, sd_name: str, cor_name: str) -> np.ndarray:
    """Covariance matrices of group effects from sds and correlations, shape (..., q, q)."""
    sd = np.asarray(estimates[sd_name])
    q = sd.shape[-1]
    cor = estimates[cor_name] if cor_name in estimates else np.eye(q)
    # A correlation with an effect of variance zero is blank, and weighs nothing.
    return sd[..., :, None] * np.nan_to_num(np.asarray(cor)) * sd[..., None, :]


def predict_classical(
    fit: Any, new_data: Any, kind: Kind, groups: Groups, prob: float
) -> pd.DataFrame:
    """Predict from a classical fit, with intervals in closed form.

    The variance of a prediction x'beta + z'b is that of Henderson (1975): the conditional variance
    of b, plus what the uncertainty of beta adds; a new group adds z'Dz, a new observation sigma^2.
    """
    import pandas as pd
    from scipy import special

    _check_request(kind, groups, prob)
    design: Design = fit.design
    family = design.spec.family
    if kind == "response" and not (family.name == "gaussian" and family.link == "identity"):
        raise HmlmError(
            f"intervals for new {family.name} outcomes are those of draws: use "
            "kind='mean', or predict from hmlm.NUTS()."
        )
    whole = new_rows(design, new_data, groups, kind == "response")
    rows = whole.mean
    beta = fit.estimates.get("beta", np.empty(0))
    eta = rows.offset + (rows.X @ beta if len(beta) else 0.0)
    alone = design.spec.pooling == "none"
    finest = max(design.blocks, key=lambda b: len(b.levels), default=None)
    lead = np.array(rows.X, dtype=float)
    variance = np.zeros(len(eta))
    blank = np.zeros(len(eta), dtype=bool)
    for block, Z, index in zip(design.blocks, rows.Z, rows.index, strict=True):
        if groups == "include":
            effects = fit.effects[block.group]
            eta = eta + np.einsum("nk,nk->n", Z, np.nan_to_num(effects.modes)[index])
            variance += np.einsum("nk,nkl,nl->n", Z, effects.covariance[index], Z)
            shift = np.einsum("nk,nkp->np", Z, effects.gain[index])
            lead -= shift
            if alone:
                # The covariance of own coefficients holds the uncertainty of beta already.
                variance -= np.einsum("np,pr,nr->n", shift, fit.vcov, shift)
            if block is finest:  # a level of another factor is only the one that others refer to
                blank |= ((Z != 0) & ~effects.estimable[index]).any(axis=1)
        elif alone:
            raise HmlmError(
                "without pooling there is no population to draw new groups from: predict for known "
                "groups, or pool partially."
            )
        elif groups == "new":
            D = _covariance(fit.estimates, f"sd_{block.group}", f"cor_{block.group}")
            variance += np.einsum("nk,kl,nl->n", Z, D, Z)
    variance += np.einsum("np,pr,nr->n", lead, fit.vcov, lead)
    if kind == "response":
        sigma2 = float(fit.estimates.get("sigma", 1.0)) ** 2
        variance += sigma2 / (1.0 if whole.weights is None else whole.weights)
    # How the effects of several factors vary together is not kept without pooling.
    unknown = blank | (alone and len(design.blocks) > 1)
    error = np.where(unknown, np.nan, np.sqrt(np.maximum(variance, 0.0)))
    eta = np.where(blank, np.nan, eta)
    half = special.ndtri(0.5 + prob / 2) * error
    bounds = [eta - half, eta + half]
    if kind == "mean" and family.link != "identity":
        # The interval is that of the linear predictor; the standard error by the delta method.
        error = error * np.abs(link_slope(family.link, eta))
        eta = from_link(family.link, eta)
        bounds = np.sort([from_link(family.link, bound) for bound in bounds], axis=0).tolist()
    return pd.DataFrame(
        {"estimate": eta, "std_error": error, "lower": bounds[0], "upper": bounds[1]}
    )


def linear_predictors(
    design: Design,
    posterior: Mapping[str, np.ndarray],
    rows: NewRows,
    part: slice,
    fresh: Mapping[str, np.ndarray] | None = None,
    population: bool = False,
) -> list[np.ndarray]:
    """Return every linear predictor in some rows, each of shape (draws, rows).

    Parameters
    ----------
    design : Design
        What was fitted.
    posterior : mapping of str to ndarray
        Draws of every variable, the draw on the first axis.
    rows : NewRows
        All rows.
    part : slice
        Which of them.
    fresh : mapping of str to ndarray, optional
        Effects of new groups, which stand in place of those in `posterior`.
    population : bool
        Whether to leave group effects out.
    """
    n_draws = len(next(iter(posterior.values())))
    etas = []
    for p, arrays in zip(design.predictors, rows.predictors, strict=True):
        eta = np.repeat(arrays.offset[part][None], n_draws, axis=0)
        if p.terms:
            eta += posterior[p.named("beta")] @ arrays.X[part].T
        for k, block in enumerate(p.blocks):
            name = p.named(f"b_{block.group}")
            if population:
                continue
            drawn = fresh is not None and name in fresh
            effects = fresh[name] if fresh is not None and drawn else posterior[name]
            at = arrays.new_index[k][part] if drawn else arrays.index[k][part]
            eta += np.einsum("nk,snk->sn", arrays.Z[k][part], effects[:, at, :])
        etas.append(eta)
    return etas


def family_values(
    design: Design, posterior: Mapping[str, np.ndarray], etas: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the family's parameters, of shapes that broadcast with (draws, rows)."""
    values = {name: posterior[name][:, None] for name in design.parameters}
    if design.known_se:
        values["sigma"] = np.ones((1, 1))
    for p, eta in zip(design.predictors, etas, strict=True):
        if p.name in PARAMETERS:
            values[p.name] = from_link(PARAMETERS[p.name].link, eta)
    return values


def expected_rows(
    design: Design,
    posterior: Mapping[str, np.ndarray],
    rows: NewRows,
    fresh: Mapping[str, np.ndarray] | None = None,
    population: bool = False,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the expected outcome of some rows after the others, with the rows: (draws, rows).

    Of an ordinal or categorical outcome the probabilities of the categories, (draws, rows, K).
    """
    for start in range(0, rows.size, ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        etas = linear_predictors(design, posterior, rows, part, fresh, population)
        yield part, _expected(design, posterior, etas)


def _expected(
    design: Design, posterior: Mapping[str, np.ndarray], etas: list[np.ndarray]
) -> np.ndarray:
    family = design.spec.family
    if family.outcome in ("ordered", "category"):
        cuts = posterior["cutpoints"][:, None] if family.outcome == "ordered" else None
        return category_probabilities(family, etas, cuts)
    return expected_outcome(family, etas[0], family_values(design, posterior, etas))


def new_groups(
    design: Design,
    posterior: Mapping[str, np.ndarray],
    rows: NewRows,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Draw effects of new groups from N(0, D), correlated within each group.

    Raises
    ------
    HmlmError
        If the model does not pool, so that there is no population of groups.
    """
    found = {}
    n_draws = len(next(iter(posterior.values())))
    for p, arrays in zip(design.predictors, rows.predictors, strict=True):
        for block, new_index in zip(p.blocks, arrays.new_index, strict=True):
            if design.spec.pooling == "none":
                raise HmlmError(
                    "without pooling there is no population to draw new groups from: predict for "
                    "known groups, or pool partially."
                )
            D = _covariance(posterior, p.named(f"sd_{block.group}"), p.named(f"cor_{block.group}"))
            vals, vecs = np.linalg.eigh(D)
            root = vecs * np.sqrt(np.maximum(vals, 0.0))[:, None, :]
            normal = rng.standard_normal((n_draws, int(new_index.max()) + 1, len(block.columns)))
            found[p.named(f"b_{block.group}")] = np.einsum("skl,sjl->sjk", root, normal)
    return found


def predict_bayes(
    fit: Fit,
    posterior: Mapping[str, np.ndarray],
    new_data: Any,
    kind: Kind,
    groups: Groups,
    prob: float,
    random_seed: int | None,
) -> pd.DataFrame:
    """Predict from posterior draws; see `BayesFit.predict`.

    Parameters
    ----------
    fit : BayesFit
        The fit.
    posterior : mapping of str to ndarray
        Draws of every variable, the chains put together: the first axis is the draw.
    new_data, kind, groups, prob, random_seed
        As in `BayesFit.predict`.
    """
    import pandas as pd

    _check_request(kind, groups, prob)
    design = fit.design
    family = design.spec.family
    rows = new_rows(design, new_data, groups, kind == "response")
    rng = np.random.default_rng(random_seed)
    fresh = new_groups(design, posterior, rows, rng) if groups == "new" else None
    categories = family.outcome in ("ordered", "category")
    width = len(design.categories) if categories and kind != "linear" else 1
    out = np.empty((rows.size, width, 4))
    tails = [0.5 - prob / 2, 0.5 + prob / 2]
    for start in range(0, rows.size, ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        etas = linear_predictors(design, posterior, rows, part, fresh, groups == "population")
        if kind == "linear":
            shown = etas[0]
        elif kind == "mean" or categories:
            shown = _expected(design, posterior, etas)
            if kind == "response":
                shown = _draw_categories(shown, rng)
        else:
            shown = draw_outcomes(
                family,
                etas[0],
                family_values(design, posterior, etas),
                rng,
                None if rows.trials is None else rows.trials[part],
                None if rows.weights is None else rows.weights[part],
            )
        shown = shown.reshape(*shown.shape[:2], -1)
        out[part, :, 0], out[part, :, 1] = shown.mean(axis=0), shown.std(axis=0, ddof=1)
        out[part, :, 2:] = np.moveaxis(np.quantile(shown, tails, axis=0), 0, -1)
    table = pd.DataFrame(out.reshape(-1, 4), columns=["estimate", "std_error", "lower", "upper"])
    if width > 1:
        table.insert(0, "category", np.tile(np.asarray(design.categories), rows.size))
        table.index = np.repeat(np.arange(rows.size), width)
    return table


def _draw_categories(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return which category a new outcome is in, as zeros and a one."""
    K = probabilities.shape[-1]
    u = rng.random(probabilities.shape[:-1])
    chosen = (u[..., None] > np.cumsum(probabilities, axis=-1)).sum(axis=-1)
    return np.asarray(np.eye(K)[np.minimum(chosen, K - 1)])
