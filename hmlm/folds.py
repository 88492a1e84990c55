"""Cross-validation by folds of groups or rows."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
from scipy import special

from hmlm.cross_validation import CrossValidation, pooled_group, thinned_draws
from hmlm.design import find_block
from hmlm.errors import HmlmError
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.group_likelihood import integrate_groups
from hmlm.held_out import known_effects, refit_rows
from hmlm.log_likelihood import log_likelihood_rows


def k_fold(
    fit: Any,
    k: int = 10,
    by: str = "group",
    group: str | None = None,
    random_seed: int | None = None,
    executor: Executor | None = None,
) -> CrossValidation:
    """Fit anew to all folds but one, and predict that one, for each fold.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        A fit; a classical one predicts at its estimates.
    k : int
        Number of folds.
    by : {"group", "row"}
        Whether folds are made of whole groups, whose effects are then integrated out, or of rows
        spread over the groups.
    group : str, optional
        Grouping factor; the first of the formula when None.
    random_seed : int, optional
        Seed of the folds and of the new fits.
    executor : concurrent.futures.Executor, optional
        Where to fit; here when None.

    Returns
    -------
    CrossValidation
        With a figure for each group, or for each row.

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
    design = fit.design
    rng = np.random.default_rng(random_seed)
    if by == "group":
        group = pooled_group(design, group)
        units: Sequence[Any] = list(find_block(design, group).levels)
        unit = find_block(design, group).index
    else:
        units = list(range(len(design.y)))
        unit = np.arange(len(design.y))
    if not 2 <= k <= len(units):
        raise HmlmError(f"k lies between 2 and {len(units):,}, the number of {by}s, not {k}.")
    shuffled = rng.permutation(len(units))
    if by == "row" and design.blocks:
        # Spread each group over the folds.
        shuffled = shuffled[np.argsort(design.blocks[0].index[shuffled], kind="stable")]
    fold = np.empty(len(units), dtype=int)
    fold[shuffled] = np.arange(len(units)) % k
    tasks = [(fit, fold[unit] != f, by, group, random_seed) for f in range(k)]
    run = map if executor is None else executor.map
    results = list(run(_predict_fold, tasks))
    pointwise = np.full(len(units), np.nan)
    for f, density in enumerate(results):
        if density is None:
            raise HmlmError(
                f"fold {f + 1} of {k} holds all rows of a predictor's level or value, so that the "
                "model cannot be fitted without it: use more folds."
            )
        pointwise[fold == f] = density[fold == f]
    return CrossValidation(
        kind=f"{k}-fold by {group if by == 'group' else 'row'}",
        label=fit.label,
        units=tuple(map(str, units)),
        pointwise=pointwise,
        pareto_k=np.full(len(units), np.nan),
        p=np.nan,
    )


def _predict_fold(task: tuple[Any, np.ndarray, str, str | None, int | None]) -> np.ndarray | None:
    """Return the log predictive density of every unit by a fit to some rows."""
    fit, keep, by, group, seed = task
    again = refit_rows(fit, keep, seed)
    if again is None:
        return None
    if isinstance(again, BayesFit):
        posterior, _ = thinned_draws(again)
    else:
        posterior = {name: np.asarray(value)[None] for name, value in again.estimates.items()}
        posterior = {k: np.nan_to_num(v) for k, v in posterior.items()}
    whole = known_effects(fit.design, again.design, posterior)
    if by == "group":
        assert group is not None
        density = integrate_groups(fit.design, whole, group)
    else:
        density = log_likelihood_rows(fit.design, whole)
    return np.asarray(special.logsumexp(density, axis=0) - np.log(len(density)))
