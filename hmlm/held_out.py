"""Fits without some of the rows, and what they say about all rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hmlm.blocks import Predictor
from hmlm.cells import needs_rows
from hmlm.design import Design, make_design
from hmlm.errors import HmlmError, listed
from hmlm.prediction import block_covariance, draw_effects, effect_root
from hmlm.table_columns import read_data


def refit_rows(fit: Any, keep: np.ndarray, random_seed: int | None = None) -> Any:
    """Fit to some of the rows with the same method.

    Default priors take their scale from the rows that are left.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        The fit to all rows.
    keep : ndarray of bool, shape (N,)
        Rows to keep.
    random_seed : int, optional
        Seed; that of the fit when None.

    Raises
    ------
    HmlmError
        If the model is another one without those rows: columns, categories of the outcome or its
        scale are lost with them.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.held_out import refit_rows
    >>> model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    >>> fit = model.fit(hmlm.REML())
    >>> len(refit_rows(fit, fit.design.blocks[0].index != 2).design.y)
    25
    """
    seed = getattr(fit, "random_seed", None) if random_seed is None else random_seed
    return refit_design(fit.design, fit.method, keep, seed)


def refit_design(design: Design, method: Any, keep: np.ndarray, random_seed: int | None) -> Any:
    """Fit a design to some of its rows; see `refit_rows`."""
    needs_rows(design.cells, "A fit to some of the rows", *design.spec.groups[:1])
    frame = design.data.frame[keep].reset_index(drop=True)
    fewer = make_design(design.spec, read_data(design.spec, frame), "drop")
    for p, own in zip(design.predictors, fewer.predictors, strict=False):
        if lost := [t for t in p.terms if t not in own.terms]:
            raise HmlmError(
                f"without these rows {listed(lost)} cannot be estimated: the other rows do not "
                "tell them from the other predictors."
            )
    if fewer.categories != design.categories:
        lost = [c for c in design.categories if c not in fewer.categories]
        raise HmlmError(f"without these rows the outcome is never {listed(lost)}.")
    if not np.allclose(fewer.y, design.y[keep], rtol=1e-10, atol=0.0):
        raise HmlmError(
            f"'{design.spec.outcome}' is scaled by the rows that are there, so that without some "
            "of them it is another outcome: make the column before fitting."
        )
    return method.run(fewer, random_seed=random_seed, progressbar=False)


def whole_design(design: Design, fewer: Design) -> Design:
    """Return all rows with columns as a fit to fewer rows makes them.

    They differ where columns depend on the rows there are, as ``scale(x)`` does.

    Parameters
    ----------
    design : Design
        All rows.
    fewer : Design
        The rows that were fitted.
    """
    frame = design.data.frame

    def made(p: Predictor, own: Predictor) -> Predictor:
        X, offset = own.encoding.again(frame)
        columns = [own.encoding.names.index(t) for t in own.terms]
        Z = [np.column_stack([e.again(frame)[0] for e in b.encodings]) for b in own.blocks]
        blocks = tuple(replace(b, Z=z) for b, z in zip(p.blocks, Z, strict=True))
        return replace(p, X=X[:, columns], terms=own.terms, offset=offset, blocks=blocks)

    pairs = zip(design.predictors, fewer.predictors, strict=True)
    mean, *others = [made(p, own) for p, own in pairs]
    return replace(
        design,
        X=mean.X,
        terms=mean.terms,
        offset=mean.offset,
        blocks=mean.blocks,
        distributional=tuple(others),
    )


def known_effects(
    design: Design, fewer: Design, posterior: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return draws with effects of every level of a design; those of unknown levels from N(0, D).

    Parameters
    ----------
    design : Design
        All rows.
    fewer : Design
        The rows that were fitted.
    posterior : mapping of str to ndarray
        Draws of that fit.

    Raises
    ------
    HmlmError
        If a level is unknown and the model does not pool.
    """
    rng = np.random.default_rng(0)
    found = dict(posterior)
    for p, own in zip(design.predictors, fewer.predictors, strict=True):
        for block, small in zip(p.blocks, own.blocks, strict=True):
            name = p.named(f"b_{block.group}")
            place = small.levels.get_indexer(block.levels)
            effects = posterior[name][:, place]
            if (new := place < 0).any():
                g = block.group
                if design.spec.pooling != "partial":
                    raise HmlmError(
                        f"all rows of '{block.levels[new][0]}' of '{g}' are left out, and without "
                        "pooling nothing is known about it then: pool partially."
                    )
                root = effect_root(block_covariance(posterior, p, block))
                effects[:, new] = draw_effects(root, int(new.sum()), rng)
            found[name] = effects
    return found


def unknown_levels(design: Design, fewer: Design) -> bool:
    """Whether some level has no row among fewer rows."""
    pairs = zip(design.predictors, fewer.predictors, strict=True)
    return any(
        len(small.levels) < len(block.levels)
        for p, own in pairs
        for block, small in zip(p.blocks, own.blocks, strict=True)
    )
