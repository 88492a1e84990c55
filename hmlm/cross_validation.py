"""How well a model predicts what it has not seen: leave one row or group out, or a fold."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from hmlm.design import Design, find_block
from hmlm.errors import HmlmError, counted, listed
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.group_likelihood import blocks_inside, integrate_groups
from hmlm.held_out import known_effects, refit_rows
from hmlm.log_likelihood import log_likelihood_rows

HIGH_K = 0.7
MOST_DRAWS = 1_000


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class CrossValidation:
    """Expected log predictive density of rows or groups that were left out.

    Attributes
    ----------
    kind : str
        "leave one out", "leave one group out" or "k-fold".
    label : str
        Name of the fit.
    units : tuple of str
        What was left out, one after the other.
    pointwise : ndarray
        Log predictive density of each.
    pareto_k : ndarray
        Shape of the importance weights of each; NaN where it was fitted anew.
    p : float
        Effective number of parameters; NaN where there is none.
    refitted : tuple of str
        Units whose density comes from a fit without them.
    notes : tuple of str
        Sentences about what was done.
    """

    kind: str
    label: str
    units: tuple[str, ...]
    pointwise: np.ndarray
    pareto_k: np.ndarray
    p: float
    refitted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def elpd(self) -> float:
        """Expected log predictive density: the sum over units."""
        return float(self.pointwise.sum())

    @property
    def std_error(self) -> float:
        """Standard error of the sum (Vehtari, Gelman & Gabry 2017, section 4)."""
        return float(np.sqrt(len(self.pointwise) * self.pointwise.var(ddof=1)))

    @property
    def high_k(self) -> int:
        """How many units have a Pareto k above 0.7, so that their density cannot be trusted."""
        return int((self.pareto_k > HIGH_K).sum())

    def __str__(self) -> str:
        """Return figures and advice as text."""
        lines = [
            f"{self.label}, {self.kind}: elpd {self.elpd:.1f}, standard error "
            f"{self.std_error:.1f}"
            + ("" if np.isnan(self.p) else f", effective parameters {self.p:.1f}")
        ]
        if self.high_k:
            worst = [self.units[i] for i in np.argsort(-np.nan_to_num(self.pareto_k))[:5]]
            what = "row" if self.kind == "leave one out" else "group"
            lines.append(
                f"{counted(self.high_k, what)} with a Pareto k above {HIGH_K} (the largest: "
                f"{listed(worst[: self.high_k])}): one of them moves the posterior so far that "
                "importance weights do not follow. Use hmlm.leave_one_group_out(fit), which fits "
                "such groups anew, or hmlm.k_fold(fit)."
            )
        return "\n".join([*lines, *self.notes])


def _psis(
    fit: BayesFit, log_likelihood: np.ndarray, step: int = 1
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return pointwise density, Pareto k and effective parameters by ArviZ's PSIS."""
    import xarray as xr
    from arviz_stats.loo import loo

    chains = fit._shape[0]
    by_chain = log_likelihood.reshape(chains, -1, log_likelihood.shape[1])
    first = next(iter(fit._parameters))
    values = fit.variable(first)[:, ::step].reshape(chains, by_chain.shape[1], -1)
    tree = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({"theta": (("chain", "draw", "k"), values)}),
            "log_likelihood": xr.Dataset({"y": (("chain", "draw", "unit"), by_chain)}),
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # high k are said in our own words
        found = loo(tree, pointwise=True, var_name="y")
    return (
        np.asarray(found.elpd_i).reshape(-1),
        np.asarray(found.pareto_k).reshape(-1),
        float(found.p),
    )


def _check_bayes(fit: Any) -> BayesFit:
    if not isinstance(fit, BayesFit):
        raise HmlmError(
            f"{getattr(fit, 'label', type(fit).__name__)} has no draws to weigh: fit the model by "
            "hmlm.NUTS(), or use hmlm.k_fold(fit), which serves classical fits too."
        )
    return fit


def leave_one_out(fit: BayesFit) -> CrossValidation:
    """Estimate how well a fit predicts a row it has not seen, whose group it knows.

    By Pareto-smoothed importance sampling (Vehtari, Gelman & Gabry 2017), which ArviZ does.

    Parameters
    ----------
    fit : BayesFit
        A posterior.

    Returns
    -------
    CrossValidation
        With a figure for each row.

    Examples
    --------
    >>> import hmlm
    >>> model = hmlm.Model("y ~ 1 + (1 | school)", hmlm.load_dataset("eight_schools"), se="sigma")
    >>> fit = model.fit(random_seed=1, progressbar=False)
    >>> -31.5 < hmlm.leave_one_out(fit).elpd < -30
    True
    """
    fit = _check_bayes(fit)
    likelihood = log_likelihood_rows(fit.design, fit._flat_draws("include"))
    pointwise, k, p = _psis(fit, likelihood)
    return CrossValidation(
        kind="leave one out",
        label=fit.label,
        units=tuple(str(i) for i in range(len(pointwise))),
        pointwise=pointwise,
        pareto_k=k,
        p=p,
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

    Importance weights come from the likelihood of the whole group with its effects integrated out
    (`hmlm.group_likelihood.integrate_groups`), Pareto-smoothed; weights from the effects' own
    draws would have no finite variance (Merkle, Furr & Rabe-Hesketh 2019). Groups whose Pareto k
    is above 0.7 are left out in earnest: the model is fitted anew without them.

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
    pointwise, k, p = _psis(fit, likelihood, step)
    levels = [str(level) for level in find_block(design, group).levels]
    given = {b.group for q in design.predictors for b in q.blocks} - {
        inside.block.group for inside in blocks_inside(design, group, posterior)
    }
    notes = []
    if given:
        names = listed(sorted(given))
        notes.append(f"Effects of {names} are given: they are not nested in {group}.")
    refitted = []
    for j in np.flatnonzero(k > HIGH_K) if exact else ():
        density = _without(fit, group, int(j), random_seed)
        if density is None:
            notes.append(
                f"'{levels[j]}' could not be left out in earnest: without it the model has "
                "other columns."
            )
            continue
        pointwise[j], k[j] = density, np.nan
        refitted.append(levels[j])
    if refitted:
        notes.append(f"Fitted anew without {counted(len(refitted), 'group')}: {listed(refitted)}.")
    return CrossValidation(
        kind="leave one group out",
        label=fit.label,
        units=tuple(levels),
        pointwise=pointwise,
        pareto_k=k,
        p=p,
        refitted=tuple(refitted),
        notes=tuple(notes),
    )


def pooled_group(design: Design, group: str | None) -> str:
    """Return a grouping factor of a model that pools partially, the first by default."""
    if design.spec.pooling != "partial" or not design.blocks:
        raise HmlmError("only a model with partial pooling can predict a group it has not seen.")
    return find_block(design, group).group if group else design.blocks[0].group


def _without(fit: BayesFit, group: str, j: int, random_seed: int | None) -> float | None:
    """Return the log predictive density of one level by a fit without it."""
    keep = find_block(fit.design, group).index != j
    again = refit_rows(fit, keep, random_seed)
    if again is None:
        return None
    posterior, _ = thinned_draws(again)
    whole = known_effects(fit.design, again.design, posterior)
    density = integrate_groups(fit.design, whole, group)[:, j]
    return float(special.logsumexp(density) - np.log(len(density)))


def stack_weights(found: Sequence[CrossValidation]) -> np.ndarray:
    """Return weights that make the best mixture of predictions (Yao et al. 2018)."""
    from scipy.optimize import minimize

    density = np.exp(np.stack([f.pointwise for f in found], axis=1))
    scale = density.max(axis=1, keepdims=True)
    density = density / np.where(scale > 0, scale, 1.0)

    def loss(z: np.ndarray) -> float:
        w = special.softmax(np.append(z, 0.0))
        return -float(np.log(np.maximum(density @ w, 1e-300)).sum())

    free = len(found) - 1
    best = minimize(loss, np.zeros(free), method="L-BFGS-B", bounds=[(-12, 12)] * free)
    return np.asarray(special.softmax(np.append(best.x, 0.0)))


def paired_difference(a: CrossValidation, b: CrossValidation) -> tuple[float, float]:
    """Return the difference of two elpd, unit by unit, and its standard error."""
    gap = a.pointwise - b.pointwise
    return float(gap.sum()), float(np.sqrt(len(gap) * gap.var(ddof=1)))
