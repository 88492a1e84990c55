"""Cross-validation by folds of groups or rows."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any, Literal

import numpy as np
from scipy import special

from hmlm.cross_validation import CrossValidation, pooled_group, thinned_draws
from hmlm.design import Design, find_block
from hmlm.errors import HmlmError
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.group_likelihood import integrate_groups
from hmlm.held_out import known_effects, refit_design, unknown_levels, whole_design
from hmlm.log_likelihood import log_likelihood_rows

_Task = tuple[Design, Any, np.ndarray, str, str, "int | None"]
# Draws of the effects of levels that a classical fit has no row of.
NEW_EFFECTS = 1_000


def k_fold(
    fit: Any,
    k: int = 10,
    by: Literal["group", "row"] = "group",
    group: str | None = None,
    random_seed: int | None = None,
    executor: Executor | None = None,
) -> CrossValidation:
    """Fit anew to all folds but one, and predict that one, for each fold.

    A posterior predicts by the average density over its draws. A classical fit predicts at its
    estimates, as if they were the truth; the effects of groups that it has not seen are integrated
    out, so that folds of groups tell how far it generalises to new groups.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        A fit.
    k : int
        Number of folds; as many as there are groups leaves out one after the other.
    by : {"group", "row"}
        Whether folds are made of whole groups, whose effects are then integrated out, or of rows
        spread evenly over the groups of the first factor.
    group : str, optional
        Grouping factor; the first of the formula when None.
    random_seed : int, optional
        Seed of the folds; also of the new fits, which have that of the fit when None.
    executor : concurrent.futures.Executor, optional
        Where to fit; here when None.

    Returns
    -------
    CrossValidation
        With a figure for each group, or for each row.

    Raises
    ------
    HmlmError
        If `k` is out of range, or the model cannot be fitted without one of the folds.

    References
    ----------
    .. [1] Vehtari, Gelman and Gabry (2017), Practical Bayesian model evaluation using
       leave-one-out cross-validation and WAIC, Statistics and Computing 27, section 2.3.
    .. [2] Roberts et al. (2017), Cross-validation strategies for data with temporal, spatial,
       hierarchical, or phylogenetic structure, Ecography 40, 913-929.

    Examples
    --------
    >>> import hmlm
    >>> model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    >>> found = hmlm.k_fold(model.fit(hmlm.ML()), k=6, random_seed=1)
    >>> len(found.pointwise), -175 < found.elpd < -160
    (6, True)
    """
    if by not in ("group", "row"):
        raise HmlmError(f"by is 'group' or 'row', not {by!r}.")
    design: Design = fit.design
    factor = pooled_group(design, group) if by == "group" else ""
    units: Sequence[Any] = range(len(design.y))
    unit = np.arange(len(design.y))
    if factor:
        block = find_block(design, factor)
        units, unit = list(block.levels), block.index
    if k != int(k) or not 2 <= k <= len(units):
        raise HmlmError(f"k lies between 2 and {len(units):,}, the number of {by}s, not {k}.")
    shuffled = np.random.default_rng(random_seed).permutation(len(units))
    if by == "row" and design.blocks:
        # Spread each group over the folds.
        shuffled = shuffled[np.argsort(design.blocks[0].index[shuffled], kind="stable")]
    fold = np.empty(len(units), dtype=int)
    fold[shuffled] = np.arange(len(units)) % k
    seed = getattr(fit, "random_seed", None) if random_seed is None else random_seed
    tasks: list[_Task] = [
        (design, fit.method, fold[unit] != f, f"fold {f + 1} of {k}", factor, seed)
        for f in range(k)
    ]
    run = map if executor is None else executor.map
    pointwise = np.full(len(units), np.nan)
    for f, density in enumerate(run(_predict_fold, tasks)):
        pointwise[fold == f] = density[fold == f]
    return CrossValidation(
        kind=f"{k}-fold by {factor or 'row'}",
        label=fit.label,
        units=tuple(map(str, units)),
        pointwise=pointwise,
        pareto_k=np.full(len(units), np.nan),
        p=np.nan,
    )


def _predict_fold(task: _Task) -> np.ndarray:
    """Return the log predictive density of every unit by a fit to some rows."""
    design, method, keep, name, factor, seed = task
    try:
        again = refit_design(design, method, keep, seed)
        if isinstance(again, BayesFit):
            posterior, _ = thinned_draws(again)
        else:
            copies = 1
            if not factor and unknown_levels(design, again.design):
                copies = NEW_EFFECTS  # their effects are averaged over
            posterior = {
                name: np.repeat(np.asarray(value)[None], copies, axis=0)
                for name, value in again.estimates.items()
            }
        whole = whole_design(design, again.design)
        draws = known_effects(whole, again.design, posterior)
    except HmlmError as error:
        raise HmlmError(f"{name} cannot be left out: {error} Or use more folds.") from error
    density = (
        integrate_groups(whole, draws, factor) if factor else log_likelihood_rows(whole, draws)
    )
    return np.asarray(special.logsumexp(density, axis=0) - np.log(len(density)))
