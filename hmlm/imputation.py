"""A model fitted to several completed data sets of one table with missing values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hmlm.design import Design
from hmlm.errors import DataError, counted, listed
from hmlm.families import Family
from hmlm.model import Model, chosen_method
from hmlm.pooled_fit import PooledFit


def impute_fit(
    formula: str | Sequence[str],
    data_sets: Sequence[Any],
    family: str | Family = "gaussian",
    priors: Mapping[str, Any] | None = None,
    *,
    method: Any = None,
    pooling: str = "partial",
    random_seed: int | None = None,
    progressbar: bool = False,
    **model: Any,
) -> PooledFit:
    """Fit a model to several completed data sets and combine the fits.

    The data sets come from a package for multiple imputation: each is the same table with its
    missing values filled in another way. Bayesian fits are combined by putting their draws
    together [1]_, classical ones by Rubin's rules: see `hmlm.pooled_fit.combine_estimates`.
    Standard deviations, correlations and the residual of classical fits are averages, without
    standard errors.

    Parameters
    ----------
    formula, family, priors
        As in `hmlm.Model`. Default priors take their scale from each data set.
    data_sets : sequence of data frames
        Two or more completed tables; ten or more are better where draws are put together.
    method : object, optional
        As in `hmlm.Model.fit`: `hmlm.NUTS()` when None.
    pooling : {"partial", "complete", "none"}
        As in `hmlm.Model.with_pooling`.
    random_seed : int, optional
        Seed, from which each fit gets its own.
    progressbar : bool
        Whether to show progress bars while sampling.
    **model
        ``link``, ``weights``, ``se`` and ``collinear``, as in `hmlm.Model`.

    Returns
    -------
    PooledFit
        The fits, with ``tidy()``, ``predict()`` and, of Bayesian ones, ``combined``.

    Raises
    ------
    DataError
        If there are fewer than two data sets, one has missing values left, or they do not have
        the same rows, groups and columns.

    References
    ----------
    .. [1] Gelman et al. (2013), Bayesian Data Analysis, third edition, section 18.2; Zhou and
       Reiter (2010), A note on Bayesian inference after multiple imputation, The American
       Statistician 64, 159-163.

    Examples
    --------
    >>> import hmlm, numpy as np
    >>> from hmlm.imputation import impute_fit
    >>> sleep, rng = hmlm.load_dataset("sleepstudy"), np.random.default_rng(1)
    >>> def filled():
    ...     lost = np.arange(len(sleep)) % 10 == 3
    ...     return sleep.assign(Reaction=sleep.Reaction + lost * rng.normal(0, 30, len(sleep)))
    >>> fit = impute_fit("Reaction ~ Days + (1 | Subject)", [filled() for _ in range(5)],
    ...                  method=hmlm.REML())
    >>> fit.tidy(groups=False)[["term", "estimate", "std_error", "fmi"]].round(2)
            term  estimate  std_error   fmi
    0  Intercept    ...
    """
    if isinstance(data_sets, (str, Mapping, pd.DataFrame)) or not isinstance(data_sets, Sequence):
        raise DataError(
            "data_sets is a list of completed data frames, not one table: for a single table use "
            "hmlm.Model."
        )
    if len(data_sets) < 2:
        raise DataError(
            f"{counted(len(data_sets), 'data set')} cannot show how much imputed values vary: pass "
            "two or more."
        )
    models: list[Model] = []
    for number, data in enumerate(data_sets, 1):
        own = Model(formula, data, family, priors, **model).with_pooling(pooling)
        if own.data.n_dropped:
            where = listed(f"{c} ({n})" for c, n in own.data.missing.items())
            raise DataError(
                f"data set {number} of {len(data_sets)} still has missing values in "
                f"{counted(own.data.n_dropped, 'row')}, in {where}: fill in all columns of the "
                "formula, or leave the rows out of every data set."
            )
        models.append(own)
    for number, own in enumerate(models[1:], 2):
        if differs := _difference(models[0].design, own.design):
            raise DataError(
                f"data set {number} has {differs} than the first: all must be the same table with "
                "other imputed values."
            )
    seeds: list[int | None] = [None] * len(models)
    if random_seed is not None:
        seeds = [int(s) for s in np.random.SeedSequence(random_seed).generate_state(len(models))]
    chosen = chosen_method(method)
    return PooledFit(
        fits=tuple(
            # Not own.fit, which takes an interrupt for itself.
            chosen.run(own.design, random_seed=seed, progressbar=progressbar)
            for own, seed in zip(models, seeds, strict=True)
        )
    )


def _difference(first: Design, other: Design) -> str:
    """Say what keeps two designs from being combined; an empty string where nothing does."""
    if len(first.y) != len(other.y):
        return f"{len(other.y):,} rows rather than {len(first.y):,}, other"
    if first.categories != other.categories:
        return "other categories of the outcome"
    for p, q in zip(first.predictors, other.predictors, strict=True):
        if p.terms != q.terms:
            return f"other columns ({listed(set(p.terms) ^ set(q.terms))})"
        for a, b in zip(p.blocks, q.blocks, strict=True):
            if not a.levels.equals(b.levels):
                return f"other levels of '{a.group}'"
            if a.columns != b.columns:
                return f"other effects of '{a.group}'"
    return ""
