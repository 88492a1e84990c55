"""Outcomes that the fitted model would have produced: the material of predictive checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from hmlm.design import Design
from hmlm.errors import HmlmError, counted
from hmlm.expectation import category_probabilities, draw_outcomes
from hmlm.likelihoods.exponential import row_likelihood
from hmlm.new_rows import new_rows
from hmlm.prediction import (
    effect_covariance,
    effect_root,
    family_values,
    linear_predictors,
    new_groups,
)
from hmlm.version import __version__

if TYPE_CHECKING:
    import xarray as xr

Replicated = Literal["include", "new"]
LARGEST = 2**28
NUMBERS_AT_ONCE = 1_000_000


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class RowDraws:
    """Some draws of the parameters in all rows, with an outcome replicated from each.

    Attributes
    ----------
    part : slice
        Which draws.
    etas : list of ndarray, shape (draws, N)
        Linear predictors.
    values : mapping of str to ndarray
        Parameters of the family, of shapes that broadcast with (draws, N).
    probabilities : ndarray of shape (draws, N, K) or None
        Of the categories of an ordinal or categorical outcome.
    y : ndarray, shape (draws, N)
        The replicated outcome.
    """

    part: slice
    etas: list[np.ndarray]
    values: Mapping[str, np.ndarray]
    probabilities: np.ndarray | None
    y: np.ndarray


def draw_replicates(
    fit: Any,
    draws: int = 500,
    groups: Replicated = "include",
    random_seed: int | None = None,
) -> np.ndarray:
    """Draw the outcomes of a study like the one that was fitted, once for each posterior draw.

    With ``groups="include"`` the same groups are observed again: y_rep ~ p(y | theta, b). With
    ``groups="new"`` the same rows come from new groups, b_rep ~ N(0, D): mixed replication. A
    classical fit replicates from its estimates; its group effects are then drawn given the data
    and the estimates, b ~ N(mode, conditional covariance), so that replicates vary as much as the
    data do (without pooling, the groups' own coefficients are kept).

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        The fit.
    draws : int
        Number of replicates. They are spread evenly over the posterior's draws; where there are
        more replicates than those, some parameters are used again.
    groups : {"include", "new"}
        The groups of the data, or new ones.
    random_seed : int, optional
        Seed.

    Returns
    -------
    ndarray, shape (draws, N)
        Outcomes, in the units of the outcome: successes where there are trials; codes from zero
        (in the order of ``fit.design.categories``) where there are categories.

    Raises
    ------
    HmlmError
        If `draws` or `groups` is none of these, if there is no population to draw new groups from
        (no pooling), if coefficients cannot be estimated, or if the result would take more than
        2 GiB.

    References
    ----------
    Gelman, A., Meng, X.-L., and Stern, H. (1996). Posterior predictive assessment of model fitness
    via realized discrepancies. Statistica Sinica 6, 733-807. Gelman, A., et al. (2013). Bayesian
    Data Analysis, 3rd ed., 6.3-6.4.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.replicates import draw_replicates
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).fit(hmlm.REML())
    >>> replicates = draw_replicates(fit, draws=200, random_seed=1)
    >>> replicates.shape
    (200, 180)
    >>> bool(abs(replicates.mean() - sleep["Reaction"].mean()) < 2)
    True
    """
    design: Design = fit.design
    check_draws(draws)
    if groups not in get_args(Replicated):
        raise HmlmError(f"groups is 'include' or 'new', not {groups!r}.")
    n = len(design.y)
    if draws * n > LARGEST:
        raise HmlmError(
            f"{draws:,} replicates of {counted(n, 'row')} would take "
            f"{draws * n * 8 / 2**30:,.0f} GiB: draw at most {max(LARGEST // n, 1):,}."
        )
    rng = np.random.default_rng(random_seed)
    found = np.empty((draws, n))
    posterior = replicated_parameters(fit, draws, groups, rng)
    for rows in replicate_rows(design, posterior, groups, rng):
        found[rows.part] = rows.y
    return found


def check_draws(draws: Any) -> None:
    """Refuse a number of replicates that is none.

    Raises
    ------
    HmlmError
        If `draws` is no whole number from 1 on.
    """
    if isinstance(draws, bool) or not isinstance(draws, int | np.integer) or draws < 1:
        raise HmlmError(f"draws is a whole number from 1 on, not {draws!r}.")


def replicated_parameters(
    fit: Any, draws: int, groups: Replicated, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return the parameters behind some replicates, the replicate on the first axis.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        The fit.
    draws : int
        How many.
    groups : {"include", "new"}
        Whether group effects are wanted; with "new" they are left out.
    rng : numpy.random.Generator
        Source of a classical fit's group effects.
    """
    design: Design = fit.design
    if not hasattr(fit, "estimates"):
        posterior = {}
        for variable in design.variables:
            if variable.kind != "group" or groups == "include":
                values = fit.variable(variable.name)
                flat = values.reshape(-1, *values.shape[2:])
                places = np.linspace(0, len(flat) - 1, draws).round().astype(int)
                posterior[variable.name] = flat[places]
        return posterior
    effects = {v.name for v in design.variables if v.kind == "group"}
    found = {
        name: np.broadcast_to(value, (draws, *np.shape(value)))
        for name, value in fit.estimates.items()
        if name not in effects
    }
    if groups == "include" and design.blocks:
        found.update(_estimated_effects(fit, draws, rng))
    return found


def _estimated_effects(fit: Any, draws: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw a classical fit's group effects from p(b | y, estimates), or repeat own coefficients.

    With b = Lambda u and u ~ N(0, I) a priori, A = I + (Z Lambda)'W(Z Lambda) is the precision of
    u given the data, and A^-1 (e1 + (Z Lambda)'W^(1/2) e2) with standard normal e1 and e2 is a draw
    around the mode: for gaussian outcomes exactly, else in Laplace's approximation.
    """
    design: Design = fit.design
    modes = {b.group: np.asarray(fit.effects[b.group].modes) for b in design.blocks}
    if design.spec.pooling != "partial":
        if lost := int(np.isnan(fit.linear_predictor).sum()):
            raise HmlmError(
                f"coefficients that {counted(lost, 'row')} need cannot be estimated without "
                "pooling, so there is nothing to replicate them from: pool partially."
            )
        return {f"b_{g}": np.broadcast_to(m, (draws, *m.shape)) for g, m in modes.items()}
    roots, pieces = [], []
    n = len(design.y)
    for block in design.blocks:
        D = effect_covariance(fit.estimates, f"sd_{block.group}", f"cor_{block.group}")
        roots.append(effect_root(D))
        q, J = len(D), len(block.levels)
        columns = block.index[:, None] * q + np.arange(q)
        place = (np.repeat(np.arange(n), q), columns.ravel())
        pieces.append(sparse.csr_array(((block.Z @ roots[-1]).ravel(), place), (n, J * q)))
    M = sparse.hstack(pieces, format="csr")
    half = M.multiply(np.sqrt(_information(fit))[:, None]).tocsr()
    size = M.shape[1]
    A = (half.T @ half + sparse.eye_array(size)).tocsc()
    normal = rng.standard_normal((size, draws)) + half.T @ rng.standard_normal((n, draws))
    solver = splu(
        A, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    u = solver.solve(np.asfortranarray(normal))
    found, start = {}, 0
    for block, root in zip(design.blocks, roots, strict=True):
        J, q = modes[block.group].shape
        own = u[start : start + J * q].T.reshape(draws, J, q)
        found[f"b_{block.group}"] = modes[block.group] + own @ root.T
        start += J * q
    return found


def _information(fit: Any) -> np.ndarray:
    """Return how much each row says about its linear predictor, at the estimates."""
    design: Design = fit.design
    family = design.spec.family
    if family.name == "gaussian":
        weights = np.ones(len(design.y)) if design.weights is None else design.weights
        return np.asarray(weights / float(fit.estimates.get("sigma", 1.0)) ** 2)
    parameter = float(fit.estimates[design.parameters[0]]) if design.parameters else 1.0
    rows = row_likelihood(family, design.y, design.trials, parameter)
    return np.maximum(rows.terms(fit.linear_predictor).observed, 0.0)


def replicate_rows(
    design: Design,
    posterior: Mapping[str, np.ndarray],
    groups: Replicated,
    rng: np.random.Generator,
) -> Iterator[RowDraws]:
    """Yield replicates a few draws at a time, with the linear predictors behind them.

    Parameters
    ----------
    design : Design
        What was fitted.
    posterior : mapping of str to ndarray
        From `replicated_parameters`.
    groups : {"include", "new"}
        The groups of the data, or new ones.
    rng : numpy.random.Generator
        Source of the random numbers.
    """
    family = design.spec.family
    rows = new_rows(design, None, groups)
    n, total = rows.size, len(next(iter(posterior.values())))
    width = max(len(design.categories), 1) if family.outcome in ("ordered", "category") else 1
    at_once = max(NUMBERS_AT_ONCE // (n * width), 1)
    for start in range(0, total, at_once):
        part = slice(start, min(start + at_once, total))
        own = {name: values[part] for name, values in posterior.items()}
        fresh = new_groups(design, own, rows, rng) if groups == "new" else None
        etas = linear_predictors(design, own, rows, slice(0, n), fresh)
        values = family_values(design, own, etas)
        probabilities = None
        if family.outcome in ("ordered", "category"):
            cuts = own["cutpoints"][:, None] if family.outcome == "ordered" else None
            probabilities = category_probabilities(family, etas, cuts)
            edges = np.cumsum(probabilities, axis=-1)[..., :-1]
            y = (rng.random(etas[0].shape)[..., None] > edges).sum(axis=-1).astype(float)
        else:
            y = draw_outcomes(family, etas[0], values, rng, rows.trials, rows.weights)
        yield RowDraws(part=part, etas=etas, values=values, probabilities=probabilities, y=y)


def posterior_predictive_tree(
    fit: Any,
    draws: int = 500,
    groups: Replicated = "include",
    random_seed: int | None = None,
) -> xr.DataTree:
    """Return replicates beside the data, as the DataTree that ArviZ's predictive plots take.

    Parameters
    ----------
    fit, draws, groups, random_seed
        As in `draw_replicates`.

    Returns
    -------
    xarray.DataTree
        Groups ``posterior_predictive`` (dims chain, draw and row; one chain) and
        ``observed_data``, each with the variable ``y``. Outcomes of families that are counts,
        yes/no or categories are whole numbers, as ``plot_ppc_rootogram`` asks.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.replicates import posterior_predictive_tree
    >>> data = hmlm.load_dataset("sleepstudy")
    >>> fit = hmlm.Model("Reaction ~ Days + (1 | Subject)", data).fit(hmlm.REML())
    >>> tree = posterior_predictive_tree(fit, draws=50, random_seed=1)
    >>> dict(tree["posterior_predictive"].sizes)
    {'chain': 1, 'draw': 50, 'row': 180}
    """
    import xarray as xr

    design: Design = fit.design
    replicates = draw_replicates(fit, draws, groups, random_seed)
    observed = design.y
    if design.spec.family.discrete:
        replicates, observed = replicates.astype(np.int64), observed.astype(np.int64)
    attrs = {
        "creation_library": "hmlm",
        "creation_library_version": __version__,
        "formula": design.spec.formula,
        "groups": groups,
        "random_seed": str(random_seed),
        "sample_dims": ["chain", "draw"],
    }
    rows = {"row": np.asarray(design.coords["row"])}
    sampled = {"chain": np.arange(1), "draw": np.arange(draws), **rows}
    predictive = xr.Dataset(
        {"y": (("chain", "draw", "row"), replicates[None])}, coords=sampled, attrs=attrs
    )
    data = xr.Dataset({"y": (("row",), observed)}, coords=rows, attrs=attrs)
    return xr.DataTree.from_dict({"posterior_predictive": predictive, "observed_data": data})
