"""Conditional modes of the group effects, with their conditional covariances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from hmlm.likelihoods.crossed import (
    Crossed,
    block_diagonal,
    diagonal_blocks,
    rest_slices,
    row_dots,
)
from hmlm.likelihoods.crossproducts import OneFactor
from hmlm.likelihoods.profiled import GaussianSums, ProfiledPoint
from hmlm.likelihoods.tree import Tree


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class EffectMoments:
    """Moments of the effects of one factor given y, beta and theta, on the user's scale.

    Attributes
    ----------
    modes : ndarray, shape (J, q)
        Conditional modes, which are also the conditional means.
    covariance : ndarray, shape (J, q, q)
        Conditional covariance.
    gain : ndarray, shape (J, q, p)
        How the modes fall as beta rises.
    """

    modes: np.ndarray
    covariance: np.ndarray
    gain: np.ndarray


def effect_moments(sums: GaussianSums, point: ProfiledPoint) -> dict[str, EffectMoments]:
    """Return the moments of every factor's effects at the estimates of a profiled point.

    Returns
    -------
    dict of str to EffectMoments
        By grouping factor; under "" for a model with one factor.
    """
    if isinstance(sums, OneFactor):
        _, W = point.state
        W = W[sums.which]
        return {"": _finish(sums, point, sums.T, W @ sums.ZM, W)}
    if isinstance(sums, Tree):
        return _tree(sums, point)
    return _crossed(sums, point)


def _finish(
    sums: GaussianSums, point: ProfiledPoint, T: np.ndarray, on_M: np.ndarray, W: np.ndarray
) -> EffectMoments:
    """Turn effects on the columns of M, in the conditioned basis, into moments.

    Parameters
    ----------
    sums, point
        Data and estimates.
    T : ndarray, shape (q, q)
        Change of basis.
    on_M : ndarray, shape (J, q, p + 1)
        Effects predicted from each column of M.
    W : ndarray, shape (J, q, q)
        Conditional covariance over sigma^2.
    """
    on_M = T @ on_M
    Q, y = on_M[:, :, :-1], on_M[:, :, -1]
    return EffectMoments(
        modes=y - Q @ point.gamma,
        covariance=point.sigma2 * (T @ W @ T.T),
        gain=Q @ sums.basis.R,
    )


def _tree(tree: Tree, point: ProfiledPoint) -> dict[str, EffectMoments]:
    """From the root down: effects given those of the outer levels."""
    m = tree.MM.shape[0]
    found: dict[str, EffectMoments] = {}
    outer_effects = np.zeros((1, 0, m))
    outer_cov = np.zeros((1, 0, 0))
    for ell in range(len(tree.levels) - 1, -1, -1):
        level, at = tree.levels[ell], point.state[ell]
        effects, cov = outer_effects[level.parent], outer_cov[level.parent]
        width = effects.shape[1]
        W, B = at.W, at.B
        if level.classes is not None:
            W, B = W[level.classes.which], level.B
        G = W @ B[:, :, :width]
        own = W @ B[:, :, width:] - G @ effects
        cross = -(G @ cov)
        own_cov = W - cross @ np.swapaxes(G, 1, 2)
        back = np.argsort(level.order)
        if level.copies == (1,):
            found[level.blocks[0].group] = _finish(
                tree, point, level.bases[0], own[back], own_cov[back]
            )
        else:
            start = 0
            for block, T in zip(level.blocks, level.bases, strict=True):
                J, q = len(block.levels), len(block.columns)
                part = slice(start, start + J * q)
                found[block.group] = _finish(
                    tree,
                    point,
                    T,
                    own[0, part].reshape(J, q, m),
                    diagonal_blocks(own_cov[0], part, q, J),
                )
                start += J * q
        if ell:
            outer_effects = np.concatenate([own, effects], axis=1)
            outer_cov = np.concatenate(
                [
                    np.concatenate([own_cov, cross], axis=2),
                    np.concatenate([np.swapaxes(cross, 1, 2), cov], axis=2),
                ],
                axis=1,
            )
    return found


def _crossed(sums: Crossed, point: ProfiledPoint) -> dict[str, EffectMoments]:
    state = point.state
    J, q, m = sums.ZM.shape
    on_M = state.L @ state.t
    C = state.L @ (state.L @ state.inverse()).T
    fine = state.W @ state.F.reshape(J, q, m)
    WZR = sparse.csr_array(block_diagonal(state.W) @ sums.ZR)
    WC = WZR @ C
    W = np.array(state.W)
    for a in range(q):
        for b in range(q):
            W[:, a, b] += row_dots(WZR[b::q], WC[a::q])
    found = {sums.fine.group: _finish(sums, point, sums.fine_T, fine, W)}
    for block, T, part in zip(sums.rest, sums.rest_T, rest_slices(sums), strict=True):
        size, levels = len(block.columns), len(block.levels)
        found[block.group] = _finish(
            sums,
            point,
            T,
            on_M[part].reshape(levels, size, m),
            diagonal_blocks(C, part, size, levels),
        )
    return found
