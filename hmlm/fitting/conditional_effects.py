"""Group effects drawn given the parameters, with seeds that are kept, so that they come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hmlm.design import Design
from hmlm.likelihoods.gaussian import gaussian_sums
from hmlm.likelihoods.threads import one_blas_thread

LARGEST_INTEGRATED_REST = 40


def draw_conditional_effects(
    design: Design,
    parameters: Mapping[str, np.ndarray],
    runs: Sequence[tuple[int, int]],
    sums: Any = None,
) -> dict[str, np.ndarray]:
    """Draw group effects of a gaussian model from p(b | y, theta), one for each draw of theta.

    Parameters
    ----------
    design : Design
        The model.
    parameters : mapping of str to ndarray
        Draws of theta, shape (chains, draws, ...).
    runs : sequence of (int, int)
        The seed of each run of the sampler and its draws a chain, in the order of the draws: the
        same runs give the same effects, bit for bit.
    sums : object, optional
        The sums of the data; computed when None.

    Returns
    -------
    dict of str to ndarray
        ``b_<group>``, shape (chains, draws, J, q).
    """
    from hmlm.likelihoods.effect_draws import draw_effects

    pieces: list[dict[str, np.ndarray]] = []
    start = 0
    with one_blas_thread():
        if sums is None:
            sums = gaussian_sums(design, LARGEST_INTEGRATED_REST)
        for seed, n in runs:
            part = {k: v[:, start : start + n] for k, v in parameters.items()}
            chains = len(next(iter(part.values())))
            flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in part.items()}
            drawn = draw_effects(design, sums, flat, np.random.default_rng([seed, 1]))
            pieces.append({k: v.reshape(chains, n, *v.shape[1:]) for k, v in drawn.items()})
            start += n
    if len(pieces) == 1:
        return {k: np.ascontiguousarray(v) for k, v in pieces[0].items()}
    return {k: np.concatenate([piece[k] for piece in pieces], axis=1) for k in pieces[0]}
