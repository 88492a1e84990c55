"""Where sampling starts, and how much the data say about the effects of each factor."""

from __future__ import annotations

import numpy as np

from hmlm.design import Block
from hmlm.likelihoods.covariance import sds_and_correlations
from hmlm.likelihoods.crossed import Crossed, rest_slices
from hmlm.likelihoods.crossproducts import OneFactor
from hmlm.likelihoods.profiled import GaussianSums
from hmlm.likelihoods.scales import Scale


def average_information(sums: GaussianSums) -> list[np.ndarray]:
    """Return the average information about the effects of every block, in the blocks' order.

    Parameters
    ----------
    sums : OneFactor, Tree or Crossed
        The data.

    Returns
    -------
    list of ndarray, shape (q,)
        Averages over the levels of the diagonal of Z'Z.
    """
    if isinstance(sums, OneFactor):
        shares = sums.count / sums.count.sum()
        return [shares @ np.diagonal(sums.ZZ, axis1=1, axis2=2)]
    if isinstance(sums, Crossed):
        diagonal = sums.RR.diagonal()
        return [
            np.diagonal(sums.S, axis1=1, axis2=2).mean(axis=0),
            *(
                diagonal[part].reshape(len(b.levels), -1).mean(axis=0)
                for b, part in zip(sums.rest, rest_slices(sums), strict=True)
            ),
        ]
    found = []
    for level in sums.levels:
        average = np.diagonal(level.S, axis1=1, axis2=2).mean(axis=0)
        first = 0
        for block, copies in zip(level.blocks, level.copies, strict=True):
            size = copies * len(block.columns)
            found.append(average[first : first + size].reshape(copies, -1).mean(axis=0))
            first += size
    return found


def starting_coordinates(
    block: Block,
    half: np.ndarray,
    T: np.ndarray,
    sigma: float,
    scales: list[Scale],
) -> list[float]:
    """Return the coordinates of one block at an estimate, off zero and off perfect correlation.

    Parameters
    ----------
    block : Block
        The block.
    half : ndarray, shape (q, q)
        A root of the covariance of its effects.
    T : ndarray, shape (q, q)
        Change of basis of the effects.
    sigma : float
        Residual sd.
    scales : list of Scale
        How its sds depend on their coordinates.

    Returns
    -------
    list of float
        Those of the sds, then those of the partial correlations.
    """
    sd, cor = sds_and_correlations(half @ half.T)
    floor = 0.1 * sigma * np.abs(np.diagonal(T))
    out = [c.coordinate(max(s, f)) for c, s, f in zip(scales, sd, floor, strict=True)]
    for part in block.slices:
        size = part.stop - part.start
        R = 0.8 * np.nan_to_num(cor[part, part]) + 0.2 * np.eye(size)
        np.fill_diagonal(R, 1.0)
        L = np.linalg.cholesky(R)
        for i in range(1, size):
            rest = 1.0
            for k in range(i):
                w = float(np.clip(L[i, k] / np.sqrt(rest), -0.95, 0.95))
                out.append(float(np.arctanh(w)))
                rest *= 1 - w * w
    return out
