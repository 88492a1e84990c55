"""Rows whose outcome alone is missing, predicted from a fit to the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from hmlm.blocks import Block
from hmlm.data import index_levels
from hmlm.design import Design
from hmlm.errors import DataError, HmlmError, counted, listed
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.prediction import Kind, block_covariance, draw_effects, effect_root
from hmlm.table_columns import read_data


def predict_missing(
    fit: Any,
    data: Any = None,
    kind: Kind = "response",
    prob: float = 0.95,
    random_seed: int | None = None,
) -> pd.DataFrame:
    """Predict the outcome of rows that lack nothing else.

    Such rows say nothing about the parameters (if outcomes are missing at random given the
    predictors), so the fit goes without them, and their predictions are the posterior of what is
    missing [1]_. Groups that only such rows have are new groups, drawn from the population.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        The fit.
    data : data frame, optional
        The table that was fitted, with the incomplete rows; when None the rows that a model with
        ``missing="impute"`` kept aside.
    kind : {"response", "mean", "linear"}
        A new observation, the expected outcome, or the linear predictor; see `BayesFit.predict`.
        Classical fits of other families than the gaussian have no intervals of observations.
    prob : float
        Probability of the intervals.
    random_seed : int, optional
        Seed of the draws of new groups and observations.

    Returns
    -------
    pandas.DataFrame
        A row for each row to be predicted (for each category, where there are such): ``row``, its
        number in the table from 0, the grouping factors, ``new_group`` (whether a factor has a
        level there that the fit has not seen), ``category`` where there are such, ``estimate``,
        ``std_error``, ``lower`` and ``upper``.

    Raises
    ------
    DataError
        If nothing but an outcome is missing in no row, or the rows have a level of a predictor that
        the fit has not seen.
    HmlmError
        If there are new groups and the model does not pool, or no interval can be given.

    References
    ----------
    .. [1] Gelman et al. (2013), Bayesian Data Analysis, third edition, section 18.1; Little and
       Rubin (2019), Statistical Analysis with Missing Data, third edition, section 6.2.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.missing_outcomes import predict_missing
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> sleep.loc[[4, 12], "Reaction"] = None
    >>> fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).fit(hmlm.REML())
    >>> predict_missing(fit, sleep).round(1)
       row Subject  new_group  estimate  std_error  lower  upper
    0    4     308      False     329.8       26.9  277.1  382.6
    1   12     309      False     216.7       27.5  162.8  270.5
    """
    held = _held_rows(fit.design, data)
    design = _with_new_levels(fit.design, held)
    known = _extended(fit, design, random_seed)
    new = np.zeros(len(held), dtype=bool)
    for p, q in zip(fit.design.predictors, design.predictors, strict=True):
        for block, more in zip(p.blocks, q.blocks, strict=True):
            new |= _positions(more.levels, block.group, held) >= len(block.levels)
    table = known.predict(held, kind=kind, random_seed=random_seed, prob=prob)
    place = np.asarray(table.index)
    for name in reversed(fit.design.spec.all_groups):
        codes, levels = index_levels(held, name)
        table.insert(0, name, np.asarray(levels, dtype=object)[codes][place])
    table.insert(0, "row", np.asarray(held.index)[place])
    table.insert(1 + len(fit.design.spec.all_groups), "new_group", new[place])
    return table.reset_index(drop=True)


def _held_rows(design: Design, data: Any) -> pd.DataFrame:
    spec = design.spec
    held = design.data.held if data is None else read_data(spec, data, "impute").held
    if held is not None:
        return held
    if data is None:
        raise DataError(
            f"the model kept no rows aside whose outcome '{spec.outcome}' alone is missing: make "
            "it with missing='impute', or pass the table to predict_missing."
        )
    raise DataError(
        f"in no row of the table is the outcome '{spec.outcome}' alone missing: there is nothing "
        "to predict. For rows without that column use predict."
    )


def _positions(levels: pd.Index, group: str, rows: pd.DataFrame) -> np.ndarray:
    """Return every row's position among levels; -1 where it is not among them."""
    codes, own = index_levels(rows, group)
    found = levels.get_indexer(own)
    if (found < 0).all() and own.dtype != levels.dtype:
        found = levels.map(str).get_indexer(own.map(str))
    return np.asarray(found)[codes]


def _with_new_levels(design: Design, rows: pd.DataFrame) -> Design:
    """Return a design whose blocks have the levels of some new rows too, after their own."""

    def extended(block: Block) -> Block:
        unknown = _positions(block.levels, block.group, rows) < 0
        if not unknown.any():
            return block
        codes, own = index_levels(rows, block.group)
        fresh = own[np.unique(codes[unknown])]
        if design.spec.pooling == "none":
            raise HmlmError(
                f"{counted(len(fresh), 'level')} of '{block.group}' ({listed(fresh)}) occur only "
                "where the outcome is missing, and without pooling there is no population to draw "
                "new groups from: pool partially."
            )
        return replace(block, levels=block.levels.append(fresh))

    def all_of(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
        return tuple(map(extended, blocks))

    others = tuple(replace(p, blocks=all_of(p.blocks)) for p in design.distributional)
    return replace(design, blocks=all_of(design.blocks), distributional=others)


def _extended(fit: Any, design: Design, random_seed: int | None) -> Any:
    """Return the fit with effects of the new levels: drawn, or their expectation of zero."""
    if not isinstance(fit, BayesFit):
        effects = {}
        for block in design.blocks:
            own = fit.effects[block.group]
            more = len(block.levels) - len(own.modes)
            if more:
                values = {k: np.asarray(v)[None] for k, v in fit.estimates.items()}
                D = block_covariance(values, design.predictors[0], block)
                own = replace(
                    own,
                    modes=_padded(own.modes, np.zeros((more, *own.modes.shape[1:]))),
                    covariance=_padded(own.covariance, np.repeat(D, more, axis=0)),
                    gain=_padded(own.gain, np.zeros((more, *own.gain.shape[1:]))),
                    estimable=_padded(own.estimable, np.ones((more, len(block.columns)), bool)),
                )
            effects[block.group] = own
        return replace(fit, design=design, effects=effects)
    # Another stream than that of the predictions, which have the same seed.
    rng = np.random.default_rng(None if random_seed is None else [random_seed, 1])
    draws = {v.name: fit.variable(v.name) for v in design.variables}
    for p in design.predictors:
        for block in p.blocks:
            name = p.named(f"b_{block.group}")
            b = draws[name]
            more = len(block.levels) - b.shape[2]
            if not more:
                continue
            flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in draws.items()}
            root = effect_root(block_covariance(flat, p, block))
            fresh = draw_effects(root, more, rng)
            draws[name] = np.concatenate([b, fresh.reshape(*b.shape[:2], *fresh.shape[1:])], axis=2)
    return replace(fit, design=design, _parameters=draws, _kept={})


def _padded(values: np.ndarray, more: np.ndarray) -> np.ndarray:
    return np.concatenate([np.asarray(values), more])
