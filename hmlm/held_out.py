"""Fits without some of the rows, and their draws for all groups."""

from __future__ import annotations

from typing import Any

import numpy as np

from hmlm.design import Design, make_design, read_data
from hmlm.prediction import effect_covariance


def refit_rows(fit: Any, keep: np.ndarray, random_seed: int | None = None) -> Any:
    """Fit to some of the rows with the same method; None where columns are lost with the others."""
    spec = fit.design.spec
    frame = fit.design.data.frame[keep].reset_index(drop=True)
    design = make_design(spec, read_data(spec, frame), "drop")
    if [p.terms for p in design.predictors] != [p.terms for p in fit.design.predictors]:
        return None
    seed = fit.random_seed if random_seed is None and hasattr(fit, "random_seed") else random_seed
    return fit.method.run(design, random_seed=seed, progressbar=False)


def known_effects(
    design: Design, fewer: Design, posterior: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return draws with effects of every level of a design; those of unknown levels from N(0, D).

    Parameters
    ----------
    design : Design
        All rows.
    fewer : Design
        The rows that were fitted.
    posterior : dict of str to ndarray
        Draws of that fit.
    """
    rng = np.random.default_rng(0)
    found = dict(posterior)
    for p, own in zip(design.predictors, fewer.predictors, strict=True):
        for block, small in zip(p.blocks, own.blocks, strict=True):
            name = p.named(f"b_{block.group}")
            place = small.levels.get_indexer(block.levels)
            effects = posterior[name][:, place]
            if (place < 0).any():
                g = block.group
                D = effect_covariance(posterior, p.named(f"sd_{g}"), p.named(f"cor_{g}"))
                values, vectors = np.linalg.eigh(D)
                root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
                normal = rng.standard_normal((len(D), int((place < 0).sum()), D.shape[1]))
                effects[:, place < 0] = np.einsum("skl,sjl->sjk", root, normal)
            found[name] = effects
    return found
