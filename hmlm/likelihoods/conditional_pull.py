"""What pulls at the effects of each block, given coefficients and the blocks that come before it.

The blocks of one linear predictor are taken in turn, coarse ones first. Each is pulled as in the
Gaussian picture of `hmlm.likelihoods.preliminary`: later blocks are integrated out at their
estimated covariance, earlier ones are given. So coordinates of nested and crossed factors are as
nearly independent as those of a single one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from hmlm.likelihoods.preliminary import Preliminary
from hmlm.likelihoods.rows import BlockRows, Rows

LEAST_LEFT = 0.02


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Pull:
    """The pull at the effects of one block.

    Attributes
    ----------
    H : ndarray, shape (J, q, q)
        Information about the effects of every group.
    constant : ndarray, shape (J, q)
        The pull at the estimate.
    by_beta : ndarray, shape (J * q, p)
        By how much it falls as coefficients rise.
    earlier : tuple of (int, csr_array)
        Earlier blocks, by their place, and by how much it falls as their effects rise.
    """

    H: np.ndarray
    constant: np.ndarray
    by_beta: np.ndarray
    earlier: tuple[tuple[int, sparse.csr_array], ...]


def conditional_pull(rows: Rows, at: Preliminary, k: int) -> Pull:
    """Return what pulls at the effects of block k.

    Parameters
    ----------
    rows : Rows
        The rows.
    at : Preliminary
        The Gaussian picture.
    k : int
        Place of the block in ``rows.blocks``.
    """
    block = rows.blocks[k]
    r = block.predictor
    W = at.weight[r]
    first = rows.predictors[r]
    X = first.of_rows(first.X)
    J, q = at.effects[k].shape
    Z = _matrix(block, J)
    WZ = sparse.diags_array(W) @ Z
    own = (Z.T @ WZ).tocsr()
    H = _diagonal_blocks(own, own, J, q, whole=True)
    by_beta = np.asarray(WZ.T @ X)
    earlier = []
    lost = np.zeros_like(H)
    for i, other in enumerate(rows.blocks):
        if other.predictor != r or i == k:
            continue
        n, width = at.effects[i].shape
        cross = (WZ.T @ _matrix(other, n)).tocsr()
        if i < k:
            earlier.append((i, cross))
            continue
        C = _covariances(rows, at, i)
        places = (np.arange(n), np.arange(n + 1))
        wide = sparse.bsr_array((C, *places), shape=(n * width, n * width))
        spread = (cross @ wide.tocsr()).tocsr()
        lost += _diagonal_blocks(spread, cross, J, q)
        Zi = _matrix(other, n)
        by_beta = by_beta - np.asarray(spread @ (Zi.T @ (X * W[:, None])))
    H = _what_is_left(H, lost)
    constant = np.einsum("jab,jb->ja", H + np.linalg.inv(at.D[k]), at.effects[k] - at.means[k])
    for i, cross in earlier:
        constant = constant + (cross @ at.effects[i].reshape(-1)).reshape(J, q)
    return Pull(H=H, constant=constant, by_beta=by_beta, earlier=tuple(earlier))


def _matrix(block: BlockRows, groups: int) -> sparse.csr_array:
    """Return Z as a sparse matrix, one column an effect."""
    N, q = block.Z.shape
    columns = block.index[:, None] * q + np.arange(q)
    starts = np.arange(0, N * q + 1, q)
    values = np.ascontiguousarray(block.Z).reshape(-1)
    return sparse.csr_array((values, columns.reshape(-1), starts), (N, groups * q))


def _covariances(rows: Rows, at: Preliminary, k: int) -> np.ndarray:
    """Return the conditional covariance of every group's effects, shape (J, q, q)."""
    block = rows.blocks[k]
    J, q = at.effects[k].shape
    Z = _matrix(block, J)
    own = (Z.T @ (sparse.diags_array(at.weight[block.predictor]) @ Z)).tocsr()
    H = _diagonal_blocks(own, own, J, q, whole=True)
    return np.linalg.inv(H + np.linalg.inv(at.D[k]))


def _diagonal_blocks(
    left: sparse.csr_array, right: sparse.csr_array, J: int, q: int, whole: bool = False
) -> np.ndarray:
    """Return the q x q blocks on the diagonal of left @ right', or (`whole`) of left itself."""
    found = np.empty((J, q, q))
    for a in range(q):
        for c in range(q):
            if whole:
                rows = np.arange(J) * q
                found[:, a, c] = np.asarray(left[rows + a, rows + c]).reshape(-1)
            else:
                found[:, a, c] = left[a::q].multiply(right[c::q]).sum(axis=1)
    return found


def _what_is_left(H: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Take away what later blocks explain as well, and keep a part of every direction."""
    if not lost.any():
        return H
    floor = LEAST_LEFT * np.einsum("jaa->j", H)[:, None] / H.shape[1]
    values, vectors = np.linalg.eigh(H - 0.5 * (lost + np.swapaxes(lost, 1, 2)))
    values = np.maximum(values, floor)
    return np.asarray((vectors * values[:, None, :]) @ np.swapaxes(vectors, 1, 2))
