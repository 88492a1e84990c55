"""The data of a Gaussian model as sums for a Gibbs sampler, with its priors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import solve_triangular

from hmlm.default_priors import ResolvedPriors
from hmlm.design import Block, Design
from hmlm.errors import HmlmError
from hmlm.likelihoods.covariance import condition
from hmlm.likelihoods.crossproducts import PopulationBasis, population_basis, share
from hmlm.priors import Prior

COEFFICIENT_PRIORS = ("normal", "student-t", "cauchy", "flat")
LARGEST_REST = 1000
LARGEST_PAIRS = 20_000_000


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Part:
    """Correlated effects of one factor.

    Attributes
    ----------
    at : slice
        Their columns.
    T, T_inverse : ndarray, shape (s, s)
        Change of basis, ``b = T @ b_conditioned``, and its inverse.
    priors : tuple of Prior
        Of their sds.
    eta : float
        Of the LKJ prior of their correlations.
    log_det : float
        log|det T|.
    """

    at: slice
    T: np.ndarray
    T_inverse: np.ndarray
    log_det: float
    priors: tuple[Prior, ...]
    eta: float

    @property
    def size(self) -> int:
        """Number of effects."""
        return len(self.priors)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Factor:
    """One grouping factor.

    Attributes
    ----------
    block : Block
        The factor.
    parts : tuple of Part
        Its correlated parts.
    T : ndarray, shape (q, q)
        Change of basis of all its effects.
    ZZ : ndarray, shape (G, q, q)
        Distinct Z'Z in that basis.
    which : ndarray of int, shape (J,)
        Which of them each level has.
    order, starts : ndarray of int
        Levels sorted by design, and where each design starts.
    """

    block: Block
    parts: tuple[Part, ...]
    T: np.ndarray
    ZZ: np.ndarray
    which: np.ndarray
    order: np.ndarray
    starts: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Number of levels, and of effects a level."""
        return len(self.which), len(self.T)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class GibbsSums:
    """All that the sampler reads.

    The columns of M are those of Q, of the other factors' indicators times Z, and the residual of
    the least-squares fit.

    Attributes
    ----------
    n : int
        Number of rows.
    basis : PopulationBasis
        Population columns and outcome.
    factors : tuple of Factor
        The one with most effects first; its effects are integrated out while the coefficients and
        the effects of the others are drawn together.
    MM : ndarray, shape (m, m)
        M'M.
    ZM : ndarray, shape (J, q, m)
        Z'M of every level of the first factor.
    pairs : ndarray or None
        Sums of outer products of ZM over levels of equal design, shape (G q q, m m), where levels
        share designs.
    priors : tuple of Prior
        Of u, where ``u = u0 + U @ gamma``.
    u0, U : ndarray
        That map.
    sigma_prior : Prior
        Of the residual sd.
    """

    n: int
    basis: PopulationBasis
    factors: tuple[Factor, ...]
    MM: np.ndarray
    ZM: np.ndarray
    pairs: np.ndarray | None
    priors: tuple[Prior, ...]
    u0: np.ndarray
    U: np.ndarray
    sigma_prior: Prior

    @property
    def p(self) -> int:
        """Number of population coefficients."""
        return len(self.priors)

    @property
    def places(self) -> tuple[slice, ...]:
        """Columns of M that belong to each factor after the first."""
        found, at = [], self.p
        for factor in self.factors[1:]:
            J, q = factor.shape
            found.append(slice(at, at + J * q))
            at += J * q
        return tuple(found)


def make_gibbs_sums(design: Design, priors: ResolvedPriors) -> GibbsSums:
    """Sum a design.

    Raises
    ------
    HmlmError
        If a coefficient's prior is none of normal, student-t, cauchy and flat; a factor has no
        more levels than correlated effects; or there are too many effects to draw together.
    """
    for entry, prior in zip(priors.entries, priors.beta, strict=False):
        if prior.name not in COEFFICIENT_PRIORS:
            raise HmlmError(
                f"hmlm.Gibbs() takes normal, student-t, cauchy and flat priors of coefficients, "
                f"and that of {entry.parameter} is {prior}: use hmlm.NUTS()."
            )
    blocks = sorted(design.blocks, key=lambda b: -len(b.levels) * len(b.columns))
    rest_size = sum(len(b.levels) * len(b.columns) for b in blocks[1:])
    if rest_size > LARGEST_REST:
        raise HmlmError(
            f"hmlm.Gibbs() draws the effects of all factors but '{blocks[0].group}' together, and "
            f"there are {rest_size:,} of them (at most {LARGEST_REST:,}): use hmlm.NUTS()."
        )
    basis = population_basis(design)
    factors = tuple(_factor(block, basis, priors) for block in blocks)
    indicators = [_indicators(f, basis) for f in factors]
    M = sparse.csr_array(
        sparse.hstack([sparse.csr_array(basis.Q), *indicators[1:], basis.residual[:, None]])
    )
    J, q = factors[0].shape
    ZM = (indicators[0].T @ M).toarray().reshape(J, q, M.shape[1])
    P = np.eye(len(priors.beta)) + np.outer(priors.constant, priors.x_means)
    assert priors.sigma is not None
    MM = (M.T @ M).toarray()
    MM[-1, -1] += 0.0 if design.cells is None else design.cells.rest
    return GibbsSums(
        n=design.n_rows,
        basis=basis,
        factors=factors,
        MM=MM,
        ZM=ZM,
        pairs=_pairs(factors[0], ZM),
        priors=priors.beta,
        u0=P @ basis.beta,
        U=solve_triangular(basis.R, P.T, trans="T").T if len(P) else P,
        sigma_prior=priors.sigma,
    )


def _factor(block: Block, basis: PopulationBasis, priors: ResolvedPriors) -> Factor:
    T = condition(block).T
    Z = block.Z @ T if basis.root_weights is None else basis.root_weights[:, None] * (block.Z @ T)
    J = len(block.levels)
    products = np.einsum("na,nb->nab", Z, Z)
    ZZ = np.zeros((J, len(T), len(T)))
    np.add.at(ZZ, block.index, products)
    distinct, which = share(ZZ)
    order = np.argsort(which, kind="stable")
    parts = []
    for at in block.slices:
        sd_priors = priors.sd[block.group][at]
        if len(sd_priors) > 1 and J <= len(sd_priors):
            raise HmlmError(
                f"hmlm.Gibbs() proposes covariance matrices from an inverse Wishart distribution, "
                f"which takes more levels than effects, and '{block.group}' has {J} levels with "
                f"{len(sd_priors)} effects: use hmlm.NUTS(), or (... || {block.group})."
            )
        eta = priors.cor[block.group].parameters["eta"] if len(sd_priors) > 1 else 1.0
        parts.append(
            Part(
                at=at,
                T=T[at, at],
                T_inverse=np.linalg.inv(T[at, at]),
                log_det=float(np.linalg.slogdet(T[at, at])[1]),
                priors=sd_priors,
                eta=eta,
            )
        )
    return Factor(
        block=block,
        parts=tuple(parts),
        T=T,
        ZZ=distinct,
        which=which,
        order=order,
        starts=np.searchsorted(which[order], np.arange(len(distinct))),
    )


def _indicators(factor: Factor, basis: PopulationBasis) -> sparse.csr_array:
    """One column for every effect of every level."""
    J, q = factor.shape
    Z = factor.block.Z @ factor.T
    if basis.root_weights is not None:
        Z = basis.root_weights[:, None] * Z
    columns = (factor.block.index[:, None] * q + np.arange(q)).reshape(-1)
    starts = np.arange(0, Z.size + 1, q)
    return sparse.csr_array((Z.reshape(-1), columns, starts), shape=(len(Z), J * q))


def _pairs(factor: Factor, ZM: np.ndarray) -> np.ndarray | None:
    J, q, m = ZM.shape
    G = len(factor.ZZ)
    if G * q > J or G * (q * m) ** 2 > LARGEST_PAIRS:
        return None
    flat = ZM.reshape(J, q * m)[factor.order]
    ends = [*factor.starts[1:], J]
    products = [flat[a:b].T @ flat[a:b] for a, b in zip(factor.starts, ends, strict=True)]
    pairs = np.array(products).reshape(G, q, m, q, m)
    return np.ascontiguousarray(np.swapaxes(pairs, 2, 3)).reshape(G * q * q, m * m)
