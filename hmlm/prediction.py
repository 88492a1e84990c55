"""Predictions for the rows of a fit and for new rows and groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from pandas.api.types import is_numeric_dtype

from hmlm.data import index_levels, read_columns
from hmlm.design import Block, Design
from hmlm.errors import DataError, HmlmError, counted, listed

if TYPE_CHECKING:
    import pandas as pd

    from hmlm.estimates import Fit

Kind = Literal["mean", "linear", "response"]
Groups = Literal["include", "population", "new"]
ROWS_AT_ONCE = 1_000


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class NewRows:
    """The arrays of rows to be predicted.

    Attributes
    ----------
    X : ndarray, shape (M, p)
        Population columns.
    offset : ndarray, shape (M,)
        Offset, zero where there is none.
    Z : tuple of ndarray
        For each block, shape (M, q).
    index : tuple of ndarray of int
        For each block the position of every row's level; -1 for a level outside the fit.
    new_index : tuple of ndarray of int
        For each block, a number for each distinct level among these rows.
    """

    X: np.ndarray
    offset: np.ndarray
    Z: tuple[np.ndarray, ...]
    index: tuple[np.ndarray, ...]
    new_index: tuple[np.ndarray, ...]


def new_rows(design: Design, new_data: Any, groups: Groups) -> NewRows:
    """Make the arrays of new rows with the meaning that every column had in the fit.

    Raises
    ------
    DataError
        If a column is missing or has missing values, or (under ``groups="include"``) a level was
        not in the data of the fit.
    """
    if new_data is None:
        n = len(design.y)
        return NewRows(
            X=design.X,
            offset=np.zeros(n) if design.offset is None else design.offset,
            Z=tuple(b.Z for b in design.blocks),
            index=tuple(b.index for b in design.blocks),
            new_index=tuple(b.index for b in design.blocks),
        )
    factors = {f for g in design.spec.groups for f in g.split(":")}
    used = {f for b in design.blocks for f in b.group.split(":")}
    outcome = _outcome_columns(design)
    predictors = [c for c in design.spec.columns if c not in outcome]
    wanted = [c for c in predictors if c not in factors or _is_predictor(design, c)]
    columns = list(_column_names(new_data))
    known = [f for f in sorted(used) if f in columns or groups == "include"]
    frame = read_columns(new_data, tuple(dict.fromkeys([*wanted, *known])) or tuple(columns[:1]))
    for name in frame:
        if missing := int(frame[name].isna().sum()):
            raise DataError(
                f"column '{name}' is missing in {counted(missing, 'row')} of the new data: fill "
                "them in or leave the rows out."
            )
        trained = design.data.frame[name].dtype
        if name in wanted and is_numeric_dtype(trained) and not is_numeric_dtype(frame[name]):
            raise DataError(
                f"column '{name}' held numbers in the fit, and is of type {frame[name].dtype} in "
                f"{counted(len(frame), 'row')} of new data: convert it first."
            )
        if name in wanted and hasattr(trained, "categories"):
            unknown = sorted(set(map(str, frame[name])) - set(map(str, trained.categories)))
            if unknown:
                raise DataError(
                    f"factor '{name}' has levels in the new data that it did not have in the fit: "
                    f"{listed(unknown)}."
                )
            frame[name] = frame[name].astype(trained)
    X, offset = design.encoding.again(frame)
    keep = [design.encoding.names.index(t) for t in design.terms]
    index, new_index, Z = [], [], []
    for block in design.blocks:
        Z.append(np.column_stack([e.again(frame)[0] for e in block.encodings]))
        here = [f for f in block.group.split(":") if f in frame]
        if len(here) < len(block.group.split(":")):
            index.append(np.full(len(frame), -1))
            new_index.append(np.arange(len(frame)))
            continue
        codes, levels = index_levels(frame, block.group)
        position = _match(levels, block)
        index.append(position[codes])
        new_index.append(codes)
        if groups == "include" and (index[-1] < 0).any():
            unknown = levels[np.unique(codes[index[-1] < 0])].tolist()
            raise DataError(
                f"{counted(len(unknown), 'level')} of '{block.group}' in "
                f"{counted(int((index[-1] < 0).sum()), 'row')} were not in the data of the fit: "
                f"{listed(unknown)}. Pass groups='new' to draw new groups from the population, or "
                "groups='population' to leave group effects out."
            )
    return NewRows(
        X=X[:, keep],
        offset=np.zeros(len(frame)) if offset is None else offset,
        Z=tuple(Z),
        index=tuple(index),
        new_index=tuple(new_index),
    )


def _column_names(data: Any) -> list[str]:
    return list(data) if isinstance(data, dict) else list(getattr(data, "columns", []))


def _outcome_columns(design: Design) -> set[str]:
    """Columns that only the outcome needs."""
    spec = design.spec
    if spec.outcome in spec.columns:
        return {spec.outcome}
    return {c for c in spec.columns if c in spec.outcome and not _is_predictor(design, c)}


def _is_predictor(design: Design, column: str) -> bool:
    """Whether a column stands in a population term or on the left of a group term."""
    import re

    texts = [design.spec.terms, *(t.terms for t in design.spec.group_terms)]
    word = re.compile(rf"(?<![\w`]){re.escape(column)}(?![\w`(])|`{re.escape(column)}`")
    return any(word.search(text) for text in texts)


def _match(levels: Any, block: Block) -> np.ndarray:
    """Positions of levels among those of the fit; -1 where they are new."""
    position = block.levels.get_indexer(levels)
    if (position < 0).all() and levels.dtype != block.levels.dtype:
        position = block.levels.map(str).get_indexer(levels.map(str))
    return np.asarray(position)


def _check_request(kind: str, groups: str, prob: float) -> None:
    if kind not in get_args(Kind):
        raise HmlmError(f"kind is 'mean', 'linear' or 'response', not {kind!r}.")
    if groups not in get_args(Groups):
        raise HmlmError(f"groups is 'include', 'population' or 'new', not {groups!r}.")
    if not 0 < prob < 1:
        raise HmlmError(f"prob must lie between 0 and 1, not {prob}.")


def _covariance(design: Design, estimates: Any, group: str) -> np.ndarray:
    """Covariance matrices of group effects from sds and correlations, shape (..., q, q)."""
    sd = np.asarray(estimates[f"sd_{group}"])
    q = sd.shape[-1]
    cor = estimates[f"cor_{group}"] if f"cor_{group}" in estimates else np.eye(q)
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
    rows = new_rows(design, new_data, groups)
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
            D = _covariance(design, fit.estimates, block.group)
            variance += np.einsum("nk,kl,nl->n", Z, D, Z)
    variance += np.einsum("np,pr,nr->n", lead, fit.vcov, lead)
    if kind == "response":
        variance += float(fit.estimates["sigma"]) ** 2
    # How the effects of several factors vary together is not kept without pooling.
    unknown = blank | (alone and len(design.blocks) > 1)
    error = np.where(unknown, np.nan, np.sqrt(np.maximum(variance, 0.0)))
    eta = np.where(blank, np.nan, eta)
    half = special.ndtri(0.5 + prob / 2) * error
    return pd.DataFrame(
        {"estimate": eta, "std_error": error, "lower": eta - half, "upper": eta + half}
    )


def predict_bayes(
    fit: Fit,
    posterior: Any,
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
    rows = new_rows(design, new_data, groups)
    rng = np.random.default_rng(random_seed)
    n_draws = len(next(iter(posterior.values())))
    fresh: list[np.ndarray | None] = []
    for block, new_index in zip(design.blocks, rows.new_index, strict=True):
        if groups != "new":
            fresh.append(None)
            continue
        if design.spec.pooling == "none":
            raise HmlmError(
                "without pooling there is no population to draw new groups from: predict for known "
                "groups, or pool partially."
            )
        D = _covariance(design, posterior, block.group)
        vals, vecs = np.linalg.eigh(D)
        root = vecs * np.sqrt(np.maximum(vals, 0.0))[:, None, :]
        normal = rng.standard_normal((n_draws, int(new_index.max()) + 1, len(block.columns)))
        fresh.append(np.einsum("skl,sjl->sjk", root, normal))
    out = np.empty((len(rows.offset), 4))
    tails = [0.5 - prob / 2, 0.5 + prob / 2]
    for start in range(0, len(rows.offset), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        eta = np.repeat(rows.offset[part][None], n_draws, axis=0)
        if design.terms:
            eta += posterior["beta"] @ rows.X[part].T
        for k, block in enumerate(design.blocks):
            if groups == "population":
                continue
            drawn = fresh[k]
            effects = posterior[f"b_{block.group}"] if drawn is None else drawn
            at = rows.index[k][part] if drawn is None else rows.new_index[k][part]
            eta += np.einsum("nk,snk->sn", rows.Z[k][part], effects[:, at, :])
        if kind == "response":
            eta += posterior["sigma"][:, None] * rng.standard_normal(eta.shape)
        out[part, 0], out[part, 1] = eta.mean(axis=0), eta.std(axis=0, ddof=1)
        out[part, 2:] = np.quantile(eta, tails, axis=0).T
    return pd.DataFrame(out, columns=["estimate", "std_error", "lower", "upper"])
