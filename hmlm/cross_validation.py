"""How well a model predicts what it has not seen: leave one row or group out, or a fold."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from hmlm.design import Design, find_block
from hmlm.errors import HmlmError, counted, listed, suggest
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.group_likelihood import blocks_inside, integrate_groups
from hmlm.held_out import known_effects, refit_rows, whole_design
from hmlm.log_likelihood import log_likelihood_parts, log_likelihood_rows
from hmlm.predictive_density import HIGH_K
from hmlm.predictive_density import CrossValidation as CrossValidation

MOST_DRAWS = 1_000


def _efficiency(fit: BayesFit) -> float:
    """Return effective draws per draw of the parameters, on average."""
    from arviz_stats.sampling_diagnostics import ess

    found = [
        np.asarray(ess(values.reshape(*values.shape[:2], -1), method="mean"))
        for values in map(np.asarray, fit._parameters.values())
    ]
    every = np.concatenate([e.reshape(-1) for e in found])
    return float(np.nanmean(every) / np.prod(fit._shape))


def _psis(
    fit: BayesFit, log_likelihood: np.ndarray, efficiency: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return pointwise density and Pareto k by ArviZ's PSIS, of (draws, units)."""
    import xarray as xr
    from arviz_stats.loo import loo

    by_chain = log_likelihood.reshape(fit._shape[0], -1, log_likelihood.shape[1])
    tree = xr.DataTree.from_dict(
        {"log_likelihood": xr.Dataset({"y": (("chain", "draw", "unit"), by_chain)})}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # high k are said in our own words
        found = loo(tree, pointwise=True, var_name="y", reff=efficiency)
    return np.array(found.elpd_i).reshape(-1), np.array(found.pareto_k).reshape(-1)


def _log_mean_exp(values: np.ndarray) -> np.ndarray:
    return np.asarray(special.logsumexp(values, axis=0) - np.log(len(values)))


def _check_bayes(fit: Any) -> BayesFit:
    if not isinstance(fit, BayesFit):
        raise HmlmError(
            f"{getattr(fit, 'label', type(fit).__name__)} has no draws to weigh: fit the model by "
            "hmlm.NUTS(), or use hmlm.k_fold(fit), which serves classical fits too."
        )
    return fit


def leave_one_out(
    fit: BayesFit, exact: bool = False, random_seed: int | None = None
) -> CrossValidation:
    """Estimate how well a fit predicts a row it has not seen, whose group it knows.

    The expected log predictive density by Pareto-smoothed importance sampling [1]_, which ArviZ
    does, with the log likelihoods of `hmlm.log_likelihood.log_likelihood_rows`. Printed, it says
    how many rows have a Pareto k above 0.7, and what to do about them.

    Parameters
    ----------
    fit : BayesFit
        A posterior.
    exact : bool
        Whether to fit the model anew without each of the rows whose Pareto k is above 0.7.
    random_seed : int, optional
        Seed of the new fits; that of the fit when None.

    Returns
    -------
    CrossValidation
        With a figure for each row, in the order of the rows of the fit.

    Raises
    ------
    HmlmError
        If the fit has no draws.

    References
    ----------
    .. [1] Vehtari, Gelman and Gabry (2017), Practical Bayesian model evaluation using
       leave-one-out cross-validation and WAIC, Statistics and Computing 27, 1413-1432.

    Examples
    --------
    >>> import hmlm
    >>> model = hmlm.Model("y ~ 1 + (1 | school)", hmlm.load_dataset("eight_schools"), se="sigma")
    >>> fit = model.fit(random_seed=1, progressbar=False)
    >>> -31.5 < hmlm.leave_one_out(fit).elpd < -30
    True
    """
    fit = _check_bayes(fit)
    efficiency = _efficiency(fit)
    n = len(fit.design.y)
    pointwise, k, whole = np.empty(n), np.empty(n), np.empty(n)
    for part, likelihood in log_likelihood_parts(fit.design, fit._flat_draws("include")):
        pointwise[part], k[part] = _psis(fit, likelihood, efficiency)
        whole[part] = _log_mean_exp(likelihood)

    def density(design: Design, draws: Mapping[str, np.ndarray], i: int) -> np.ndarray:
        return log_likelihood_rows(design, draws)[:, i]

    units = [str(i) for i in range(n)]
    high = np.flatnonzero(k > HIGH_K) if exact else np.empty(0, dtype=int)
    refitted, notes = _refit(fit, high, units, "row", np.arange(n), density, random_seed)
    for i, value in refitted.items():
        pointwise[i], k[i] = value, np.nan
    return CrossValidation(
        kind="leave one out",
        label=fit.label,
        units=tuple(units),
        pointwise=pointwise,
        pareto_k=k,
        p=float((whole - pointwise).sum()),
        refitted=tuple(units[i] for i in refitted),
        notes=tuple(notes),
        n_draws=int(np.prod(fit._shape)),
    )


def thinned_draws(fit: BayesFit) -> tuple[dict[str, np.ndarray], int]:
    """Return draws, not more than a thousand where each costs quadrature, and the step."""
    chains, n = fit._shape
    exact = str(fit.design.spec.family) == "gaussian" and not fit.design.distributional
    step = 1 if exact else max(1, -(-chains * n // MOST_DRAWS))
    found = {}
    for variable in fit.design.variables:
        values = fit.variable(variable.name)[:, ::step]
        found[variable.name] = values.reshape(-1, *values.shape[2:])
    return found, step


def leave_one_group_out(
    fit: BayesFit, group: str | None = None, exact: bool = True, random_seed: int | None = None
) -> CrossValidation:
    """Estimate how well a fit predicts a group it has not seen.

    Importance weights are the inverse of p(y_j | theta), the likelihood of the whole group with
    its effects integrated out (`hmlm.group_likelihood.integrate_groups`), over draws of theta
    given all data, Pareto-smoothed [1]_ [2]_. The effects' own draws, which the group's rows made,
    would give weights without a finite variance. Groups whose Pareto k is above 0.7 are left out
    in earnest: the model is fitted anew without them, its default priors scaled by the other rows.

    Effects of factors nested in the group are integrated out with it. Those of factors that are
    crossed with it, or that it is nested in, are parameters like all others.

    Parameters
    ----------
    fit : BayesFit
        A posterior with partial pooling.
    group : str, optional
        Grouping factor; the first of the formula when None.
    exact : bool
        Whether to fit anew.
    random_seed : int, optional
        Seed of the new fits; that of the fit when None.

    Returns
    -------
    CrossValidation
        With a figure for each group.

    Raises
    ------
    HmlmError
        If the fit has no draws, or the model no such group to pool.

    References
    ----------
    .. [1] Merkle, Furr and Rabe-Hesketh (2019), Bayesian comparison of latent variable models:
       conditional versus marginal likelihoods, Psychometrika 84, 802-829.
    .. [2] Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling,
       Journal of Machine Learning Research 25 (72).

    Examples
    --------
    >>> import hmlm
    >>> model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    >>> fit = model.fit(random_seed=1, progressbar=False)
    >>> found = hmlm.leave_one_group_out(fit)
    >>> len(found.pointwise), -175 < found.elpd < -160
    (6, True)
    """
    fit = _check_bayes(fit)
    design = fit.design
    group = pooled_group(design, group)
    posterior, step = thinned_draws(fit)
    likelihood = integrate_groups(design, posterior, group)
    pointwise, k = _psis(fit, likelihood, min(1.0, step * _efficiency(fit)))
    block = find_block(design, group)
    inside = {b.block.group for b in blocks_inside(design, group, posterior)}
    given = [b.group for p in design.predictors for b in p.blocks if b.group not in inside]
    said = []
    if given:
        names = listed(dict.fromkeys(given))
        said.append(
            f"What is known about the effects of {names} counts as known without the group too: "
            f"they are not nested in {group}."
        )

    def density(whole: Design, draws: Mapping[str, np.ndarray], j: int) -> np.ndarray:
        return integrate_groups(whole, draws, group, [j])[:, j]

    levels = [str(level) for level in block.levels]
    high = np.flatnonzero(k > HIGH_K) if exact else np.empty(0, dtype=int)
    refitted, notes = _refit(fit, high, levels, "group", block.index, density, random_seed)
    for j, value in refitted.items():
        pointwise[j], k[j] = value, np.nan
    return CrossValidation(
        kind="leave one group out",
        label=fit.label,
        units=tuple(levels),
        pointwise=pointwise,
        pareto_k=k,
        p=float((_log_mean_exp(likelihood) - pointwise).sum()),
        refitted=tuple(levels[j] for j in refitted),
        notes=(*said, *notes),
        n_draws=len(likelihood),
    )


def pooled_group(design: Design, group: str | None) -> str:
    """Return a grouping factor of the mean in a model that pools partially, by default the first.

    Raises
    ------
    HmlmError
        If there is none, or none of that name.
    """
    if design.spec.pooling != "partial" or not design.blocks:
        raise HmlmError(
            "only a model with partial pooling, of the mean, can predict a group it has not seen: "
            "leave rows out, by hmlm.leave_one_out(fit) or hmlm.k_fold(fit, by='row')."
        )
    factors = [b.group for b in design.blocks]
    if group is not None and group not in factors:
        raise HmlmError(
            f"'{group}' is no grouping factor of the mean.{suggest(str(group), factors)} There "
            f"are: {listed(factors)}."
        )
    return factors[0] if group is None else group


def _refit(
    fit: BayesFit,
    high: np.ndarray,
    units: Sequence[str],
    what: str,
    unit: np.ndarray,
    density: Callable[[Design, Mapping[str, np.ndarray], int], np.ndarray],
    random_seed: int | None,
) -> tuple[dict[int, float], list[str]]:
    """Return the log predictive density of some units by fits without them, and what to say."""
    found: dict[int, float] = {}
    notes = []
    for i in high.tolist():
        try:
            again = refit_rows(fit, unit != i, random_seed)
            whole = whole_design(fit.design, again.design)
            draws = known_effects(whole, again.design, thinned_draws(again)[0])
        except HmlmError as error:
            notes.append(f"'{units[i]}' could not be left out in earnest: {error}")
            continue
        found[i] = float(_log_mean_exp(density(whole, draws, i)))
    if found:
        names = listed(units[i] for i in found)
        notes.insert(0, f"Fitted anew without {counted(len(found), what)}: {names}.")
    return found, notes
