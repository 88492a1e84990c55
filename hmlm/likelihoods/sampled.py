"""Crossed effects that are sampled rather than integrated out, and their coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hmlm.design import Block
from hmlm.likelihoods.buffer import Buffer
from hmlm.likelihoods.crossed import Crossed, rest_slices
from hmlm.likelihoods.effects import effect_moments
from hmlm.likelihoods.profiled import ProfiledPoint


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class SampledBlock:
    """The effects of one factor as coordinates of the sampler.

    Attributes
    ----------
    block : Block
        The factor.
    T : ndarray, shape (q, q)
        Change of basis: ``b = T @ b_conditioned``.
    centred : bool
        Whether the coordinates are the effects themselves, over `scale`; standard normal
        variables, to be multiplied with the covariance factor, where not.
    scale : ndarray, shape (q,)
        Scale of centred coordinates.
    first : int
        The first coordinate.
    """

    block: Block
    T: np.ndarray
    centred: bool
    scale: np.ndarray
    first: int

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return len(self.block.levels) * len(self.block.columns)


def sampled_blocks(
    sums: Crossed,
    point: ProfiledPoint,
    Lambdas: list[np.ndarray],
    first: int,
    centred: Mapping[str, bool] | None = None,
) -> tuple[list[SampledBlock], np.ndarray]:
    """Choose coordinates for the sampled effects, and where they start.

    Effects are centred where their own rows say more about them than their distribution does:
    where the mean of n tau^2 / sigma^2 over the levels exceeds one, for every effect.

    Parameters
    ----------
    sums : Crossed
        The data.
    point : ProfiledPoint
        Estimates.
    Lambdas : list of ndarray
        Relative Cholesky factor of each rest block.
    first : int
        The first coordinate.
    centred : mapping of str to bool, optional
        The choice by hand.

    Returns
    -------
    blocks : list of SampledBlock
        One for each factor of the rest.
    start : ndarray
        Coordinates at the estimate.
    """
    moments = effect_moments(sums, point)
    sigma = float(np.sqrt(point.sigma2))
    blocks, start = [], []
    information = sums.RR.diagonal()
    for block, T, Lambda, part in zip(
        sums.rest, sums.rest_T, Lambdas, rest_slices(sums), strict=True
    ):
        J, q = len(block.levels), len(block.columns)
        relative = np.sqrt((Lambda**2).sum(axis=1))
        told = information[part].reshape(J, q).mean(axis=0) * relative**2
        chosen = (centred or {}).get(block.group, bool((told > 1).all()))
        scale = sigma * np.maximum(relative, 0.1)
        effects = moments[block.group].modes @ np.linalg.inv(T).T
        if chosen:
            x = effects / scale
        else:
            x = effects @ np.linalg.pinv(sigma * (Lambda + 0.05 * np.eye(q))).T
        blocks.append(SampledBlock(block=block, T=T, centred=chosen, scale=scale, first=first))
        start.append(np.clip(x, -3, 3).reshape(-1))
        first += J * q
    return blocks, np.concatenate(start)


def pack_sampled(out: Buffer, sums: Crossed, blocks: list[SampledBlock]) -> int:
    """Write the table of the sampled effects; see `hmlm.likelihoods.sampled_kernel`."""
    rows: list[float] = [sum(b.size for b in blocks)]
    for matrix in (sums.ZR, sums.RR):
        rows += [out.add(matrix.indptr), out.add(matrix.indices), out.add(matrix.data)]
    rows += [out.add(sums.RM), blocks[0].first, len(blocks)]
    for b in blocks:
        rows += [len(b.block.levels), len(b.block.columns), float(b.centred), out.add(b.scale)]
    return out.add(np.array(rows))


def sampled_effects(
    blocks: tuple[SampledBlock, ...], x: np.ndarray, factors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Turn coordinates into effects on the user's scale.

    Parameters
    ----------
    blocks : tuple of SampledBlock
        The factors.
    x : ndarray, shape (..., dim)
        Coordinates.
    factors : mapping of str to ndarray
        Cholesky factor of each factor's covariance, shape (..., q, q).

    Returns
    -------
    dict of str to ndarray
        ``b_<group>``, shape (..., J, q).
    """
    found = {}
    for b in blocks:
        J, q = len(b.block.levels), len(b.block.columns)
        own = x[..., b.first : b.first + b.size].reshape(*x.shape[:-1], J, q)
        if b.centred:
            found[f"b_{b.block.group}"] = (own * b.scale) @ b.T.T
        else:
            found[f"b_{b.block.group}"] = own @ np.swapaxes(factors[b.block.group], -1, -2)
    return found
