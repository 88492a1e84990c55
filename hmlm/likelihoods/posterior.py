"""A model as the numbers that the compiled density reads, and draws back as named parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hmlm.design import Block, Design
from hmlm.likelihoods.buffer import Buffer
from hmlm.likelihoods.crossed import Crossed
from hmlm.likelihoods.crossproducts import OneFactor
from hmlm.likelihoods.gaussian import bases_of, blocks_of, known_sigma2
from hmlm.likelihoods.kernel import BLOCK, HEADER, LEVEL
from hmlm.likelihoods.prior_kernel import encode_prior
from hmlm.likelihoods.profiled import GaussianSums, ProfiledPoint, shapes_of, split_theta
from hmlm.likelihoods.sampled import (
    SampledBlock,
    pack_sampled,
    sampled_blocks,
    sampled_effects,
)
from hmlm.likelihoods.scales import Scale, make_scale, resolutions
from hmlm.likelihoods.starting import average_information, starting_coordinates
from hmlm.likelihoods.tree import Tree
from hmlm.priors import Prior

if TYPE_CHECKING:
    from hmlm.default_priors import ResolvedPriors


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Posterior:
    """The log posterior of a Gaussian model with its group effects integrated out.

    Attributes
    ----------
    design : Design
        The model.
    blocks : tuple of Block
        Blocks in the order of the coordinates.
    buffer : ndarray
        What the compiled density reads.
    beta0 : ndarray, shape (p,)
        Population coefficients at coordinate zero.
    beta_map : ndarray, shape (p, p)
        ``beta = beta0 + beta_map @ x[:p]``.
    scales : tuple of tuple of Scale
        For each block, how its sds depend on their coordinates.
    sigma : Scale or None
        The same for the residual sd; None where it is known.
    start : ndarray, shape (dim,)
        Where sampling starts: the REML estimate, kept off the edges.
    sampled : tuple of SampledBlock
        Factors whose effects are sampled: crossed ones with many levels.
    """

    design: Design
    blocks: tuple[Block, ...]
    buffer: np.ndarray
    beta0: np.ndarray
    beta_map: np.ndarray
    scales: tuple[tuple[Scale, ...], ...]
    sigma: Scale | None
    start: np.ndarray
    sampled: tuple[SampledBlock, ...] = ()

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return len(self.start)

    @property
    def addresses(self) -> tuple[int, int]:
        """Addresses of the compiled density and of the function that copies coordinates."""
        from hmlm.likelihoods.compiled import expand_address
        from hmlm.likelihoods.density import logp_address

        return logp_address.address, expand_address.address

    def log_density(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the log density at the sampler's coordinates, to a constant, and its gradient."""
        from hmlm.likelihoods.density import log_density

        gradient = np.empty(self.dim)
        return float(log_density(np.ascontiguousarray(x), self.buffer, gradient)), gradient

    def parameters(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Turn coordinates into parameters on the user's scale.

        Parameters
        ----------
        x : ndarray, shape (..., dim)
            Coordinates.

        Returns
        -------
        dict of str to ndarray
            ``beta``, ``sd_<group>``, ``cor_<group>``, ``sigma`` (unless it is known) and the
            ``b_<group>`` that are sampled, in the order of ``design.dims``.
        """
        p = len(self.beta0)
        found = {"beta": self.beta0 + x[..., :p] @ self.beta_map.T}
        at = p
        factors = {}
        for block, scales in zip(self.blocks, self.scales, strict=True):
            q = len(block.columns)
            signed = np.stack([s.value(x[..., at + k]) for k, s in enumerate(scales)], axis=-1)
            found[f"sd_{block.group}"] = np.abs(signed)
            at += q
            n_z = sum(s * (s - 1) // 2 for s in block.parts)
            L = correlation_factors(x[..., at : at + n_z], block.parts)
            if block.correlated:
                turned = np.where(signed < 0, -1.0, 1.0)[..., :, None] * L
                found[f"cor_{block.group}"] = turned @ np.swapaxes(turned, -1, -2)
            factors[block.group] = signed[..., :, None] * L
            at += n_z
        found |= sampled_effects(self.sampled, x, factors)
        if self.sigma is not None:
            found["sigma"] = self.sigma.value(x[..., -1])
        return {name: found[name] for name in self.design.dims if name in found}


def correlation_factors(z: np.ndarray, parts: tuple[int, ...]) -> np.ndarray:
    """Return Cholesky factors of correlation matrices from partial correlations' coordinates.

    Parameters
    ----------
    z : ndarray, shape (..., number of correlations)
        Inverse hyperbolic tangents of the partial correlations, row by row.
    parts : tuple of int
        Sizes of the correlated parts.

    Returns
    -------
    ndarray, shape (..., q, q)
        Lower triangular.
    """
    q = sum(parts)
    L = np.zeros((*z.shape[:-1], q, q))
    at = start = 0
    for size in parts:
        for i in range(size):
            rest = np.ones(z.shape[:-1])
            for k in range(i):
                w = np.tanh(z[..., at])
                L[..., start + i, start + k] = w * np.sqrt(rest)
                rest = rest * (1 - w * w)
                at += 1
            L[..., start + i, start + i] = np.sqrt(rest)
        start += size
    return L


def kernel_covers(design: Design, priors: ResolvedPriors) -> str:
    """Return why the compiled density cannot serve a model, or an empty string if it can."""
    if design.spec.family.name != "gaussian":
        return f"the family is {design.spec.family.name}"
    if design.spec.family.link != "identity":
        return f"the link is {design.spec.family.link}"
    if design.distributional:
        return f"{design.distributional[0].name} has a formula of its own"
    if design.spec.pooling == "none" and design.blocks:
        return "every group has coefficients of its own"
    if design.offset is not None and not np.isfinite(design.offset).all():
        return "the offset is not finite"
    for entry in priors.entries:
        name, prior = entry.parameter, entry.prior
        if prior.name == "lkj":
            continue
        if encode_prior(prior) is None or (prior.name == "uniform" and prior.support == "interval"):
            return f"the kernel has no {prior.name} prior, which {name} has"
        if prior.name == "uniform" and name in design.terms:
            return f"the prior of {name} has edges"
    return ""


def pack(
    design: Design,
    sums: GaussianSums,
    priors: ResolvedPriors,
    theta: np.ndarray,
    point: ProfiledPoint,
    centred: Mapping[str, bool] | None = None,
) -> Posterior:
    """Write a model into the buffer of the compiled density.

    Parameters
    ----------
    design : Design
        The model.
    sums : OneFactor, Tree or Crossed
        Its data.
    priors : ResolvedPriors
        Its priors, all of them kinds that the kernel knows (see `kernel_covers`).
    theta : ndarray
        Where sampling starts.
    point : ProfiledPoint
        The profiled likelihood there, at the known sigma^2 if there is one; its covariance of the
        coefficients whitens them.
    centred : mapping of str to bool, optional
        For factors whose effects are sampled, whether they are centred; chosen when None.
    """
    p = len(design.terms)
    blocks = blocks_of(sums, design)
    levels = level_rows(sums)
    head = HEADER + BLOCK * len(blocks) + LEVEL * len(levels)
    out = Buffer(head)
    table = np.zeros(head)
    C = np.sqrt(point.sigma2) * np.linalg.cholesky(point.K_inverse) if p else np.empty((0, 0))
    R = sums.basis.R
    beta_map = np.linalg.solve(R, C) if p else C
    beta0 = sums.basis.to_user(point.gamma)
    P = np.eye(p) + np.outer(priors.constant, priors.x_means)
    beta_priors = [_encode(prior) for prior in priors.beta]
    table[2], table[3] = sums.n, p
    n_sampled = len(sums.rest) if isinstance(sums, Crossed) else 0
    table[4], table[5], table[14] = len(blocks), len(levels) - n_sampled, n_sampled
    table[6] = out.add(np.array(beta_priors))
    table[7] = out.add(np.concatenate([P @ beta0, (P @ beta_map).reshape(-1)]))
    table[8] = out.add(np.concatenate([point.gamma, C.reshape(-1)]))
    table[9] = out.add(sums.MM)
    table[10], table[11] = HEADER, HEADER + BLOCK * len(blocks)
    sigma = float(np.sqrt(point.sigma2))
    sigma_scale = None
    if known_sigma2(design) is None:
        assert priors.sigma is not None
        sigma_scale = Scale(prior=priors.sigma)
        table[12] = out.add(_encode(priors.sigma))
    else:
        table[12] = out.add(np.array([-1.0, sigma]))
    information = average_information(sums)
    places = {id(b): (ell, first, copies) for ell, first, copies, b in _block_places(sums, blocks)}
    at = p
    start: list[float] = [0.0] * p
    scales = []
    for k, (block, T, part, shape) in enumerate(
        zip(blocks, bases_of(sums), split_theta(theta, sums), shapes_of(sums), strict=True)
    ):
        ell, first, copies = places[id(block)]
        row = HEADER + BLOCK * k
        told = resolutions(T, information[k], sigma, len(block.levels))
        own = [make_scale(pr, r) for pr, r in zip(priors.sd[block.group], told, strict=True)]
        scales.append(tuple(own))
        eta = priors.cor[block.group].parameters["eta"] if block.correlated else 1.0
        table[row : row + BLOCK] = [
            len(block.columns),
            copies,
            ell,
            first,
            out.add(np.linalg.inv(T)),
            out.add(np.array([scale.encode() for scale in own])),
            at,
            len(block.parts),
            out.add(np.array(block.parts)),
            eta,
        ]
        begin = starting_coordinates(block, T @ shape.unpack(part) * sigma, T, sigma, own)
        start += begin
        at += len(begin)
    sampled: list[SampledBlock] = []
    if isinstance(sums, Crossed):
        rest = zip(sums.rest_shapes, split_theta(theta, sums)[1:], strict=True)
        Lambdas = [shape.unpack(part) for shape, part in rest]
        sampled, x = sampled_blocks(sums, point, Lambdas, at, centred)
        table[15] = pack_sampled(out, sums, sampled)
        start += x.tolist()
    if sigma_scale is not None:
        start.append(sigma_scale.coordinate(sigma))
    for ell, level in enumerate(levels):
        row = int(table[11]) + LEVEL * ell
        table[row : row + len(level)] = [v if isinstance(v, int) else out.add(v) for v in level]
    table[1] = float(isinstance(sums, OneFactor) or any(len(level) > 7 for level in levels))
    table[13] = len(start)
    return Posterior(
        design=design,
        blocks=tuple(blocks),
        buffer=out.finish(table),
        beta0=beta0,
        beta_map=beta_map,
        scales=tuple(scales),
        sigma=sigma_scale,
        start=np.array(start),
        sampled=tuple(sampled),
    )


def _encode(prior: Prior) -> np.ndarray:
    code = encode_prior(prior)
    assert code is not None
    return code


def level_rows(sums: GaussianSums, shared: bool = True) -> list[list[int | np.ndarray]]:
    """Return the rows of the level table: numbers as they are, arrays by their place.

    With `shared`, groups of equal design go together where that is less work.
    """
    if isinstance(sums, OneFactor) and not shared:
        J, q, m = sums.ZM.shape
        return [[J, q, 0, sums.ZZ[sums.which], sums.ZM, np.zeros(J), 1]]
    if isinstance(sums, OneFactor):
        G, q = sums.outer.shape[:2]
        pairs = _pairs(sums.outer)
        return [[G, q, 0, sums.ZZ, pairs, sums.count, 1]]
    if isinstance(sums, Crossed):
        J, q, _ = sums.S.shape
        slots: list[list[int | np.ndarray]] = [[len(b.levels), len(b.columns)] for b in sums.rest]
        return [[J, q, 0, sums.S, sums.ZM, np.zeros(J), 1], *slots]
    m = sums.MM.shape[0]
    rows: list[list[int | np.ndarray]] = [
        [
            len(level.S),
            level.q,
            level.B.shape[2] - m,
            level.S,
            level.B,
            level.parent.astype(float),
            len(level.starts),
        ]
        for level in sums.levels
    ]
    classes = sums.levels[0].classes if shared and sums.levels else None
    if classes is not None:
        rows[0] = [
            len(classes.S),
            sums.levels[0].q,
            classes.Bz.shape[2],
            classes.S,
            classes.Bz,
            classes.parent.astype(float),
            len(classes.starts),
            classes.sums,
            _pairs(classes.outer),
            classes.count,
        ]
    return rows


def _pairs(outer: np.ndarray) -> np.ndarray:
    """Keep the pairs a >= b of outer products, shape (C, q, q, m, m), each with its mirror."""
    C, q, _, m, _ = outer.shape
    pairs = np.empty((C, q * (q + 1) // 2, m, m))
    at = 0
    for a in range(q):
        for b in range(a + 1):
            pairs[:, at] = outer[:, a, b]
            if a != b:
                pairs[:, at] += outer[:, b, a]
            at += 1
    return pairs


def _block_places(sums: GaussianSums, blocks: list[Block]) -> list[tuple[int, int, int, Block]]:
    """For every block: its level, its first column there, and how often it is repeated."""
    if not isinstance(sums, Tree):
        return [(ell, 0, 1, block) for ell, block in enumerate(blocks)]
    found = []
    for ell, level in enumerate(sums.levels):
        first = 0
        for block, copies in zip(level.blocks, level.copies, strict=True):
            found.append((ell, first, copies, block))
            first += copies * len(block.columns)
    return found
