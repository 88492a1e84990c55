"""Linear algebra of group effects under row weights: I + Lambda'Z'W Z Lambda and its inverse.

The factor with the most effects is eliminated first, where the matrix is block-diagonal; what is
left on the effects of the other factors is factored densely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from hmlm.design import Block
from hmlm.likelihoods.covariance import CovarianceShape, condition, covariance_shape
from hmlm.likelihoods.crossed import block_diagonal, row_dots

DENSE_SHARE = 0.1


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Factor:
    """The effects of one grouping factor, rows in the order of the fine factor.

    Attributes
    ----------
    block : Block
        The design's block.
    shape : CovarianceShape
        Free entries of Lambda.
    T : ndarray, shape (q, q)
        Change of basis: ``b = T @ b_conditioned``.
    Z : ndarray, shape (q, N)
        Conditioned columns.
    index : ndarray of int, shape (N,)
        Level of every row.
    J : int
        Number of levels.
    place : slice
        Where its spherical effects stand in u, level after level.
    """

    block: Block
    shape: CovarianceShape
    T: np.ndarray
    Z: np.ndarray
    index: np.ndarray
    J: int
    place: slice

    def rows_of(self, u: np.ndarray) -> np.ndarray:
        """Return the spherical effects that belong to every row, shape (N, q)."""
        values: np.ndarray = u[self.place].reshape(self.J, -1)
        return values.take(self.index, axis=0)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Effects:
    """Group effects of all factors.

    Attributes
    ----------
    factors : tuple of Factor
        The fine factor first.
    order : ndarray of int, shape (N,)
        Rows sorted by the fine factor.
    starts : ndarray of int, shape (J,)
        Where each of its levels begins.
    """

    factors: tuple[Factor, ...]
    order: np.ndarray
    starts: np.ndarray

    @property
    def size(self) -> int:
        """Number of effects."""
        return self.factors[-1].place.stop

    @property
    def is_diagonal(self) -> np.ndarray:
        """Which entries of theta cannot be negative."""
        return np.concatenate([f.shape.is_diagonal for f in self.factors])

    def split(self, theta: np.ndarray) -> list[np.ndarray]:
        """Cut theta into the Lambda of every factor."""
        stops = np.cumsum([f.shape.size for f in self.factors])
        parts = np.split(theta, stops[:-1])
        return [f.shape.unpack(t) for f, t in zip(self.factors, parts, strict=True)]

    def scaled(self, Lambdas: Sequence[np.ndarray]) -> ScaledEffects:
        """Return the effects in spherical coordinates."""
        rows = [L.T @ f.Z for f, L in zip(self.factors, Lambdas, strict=True)]
        fine = rows[0]
        q = len(fine)
        products = np.array([fine[a] * fine[b] for a in range(q) for b in range(a + 1)])
        matrix = None
        if len(rows) > 1:
            pieces = [_sparse(f, z) for f, z in zip(self.factors, rows, strict=True)]
            matrix = (pieces[0], sparse.csr_array(sparse.hstack(pieces[1:], format="csr")))
        return ScaledEffects(effects=self, rows=rows, products=products, matrix=matrix)


def make_effects(blocks: Sequence[Block]) -> Effects:
    """Sort the rows of a design by its finest factor and condition every Z.

    Examples
    --------
    >>> import hmlm
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> design = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).design
    >>> make_effects(design.blocks).size
    36
    """
    fine = max(blocks, key=lambda b: len(b.levels) * len(b.columns))
    order = np.argsort(fine.index, kind="stable")
    counts = np.bincount(fine.index, minlength=len(fine.levels))
    factors = []
    start = 0
    for block in (fine, *(b for b in blocks if b is not fine)):
        T = condition(block).T
        J, q = len(block.levels), len(block.columns)
        factors.append(
            Factor(
                block=block,
                shape=covariance_shape(block.parts),
                T=T,
                Z=np.ascontiguousarray((block.Z @ T)[order].T),
                index=block.index[order],
                J=J,
                place=slice(start, start + J * q),
            )
        )
        start += J * q
    return Effects(factors=tuple(factors), order=order, starts=np.cumsum(counts) - counts)


def _sparse(factor: Factor, z: np.ndarray) -> sparse.csr_array:
    q, n = z.shape
    columns = (factor.index[:, None] * q + np.arange(q)).reshape(-1)
    starts = np.arange(0, n * q + 1, q)
    return sparse.csr_array((z.T.reshape(-1), columns, starts), shape=(n, factor.J * q))


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ScaledEffects:
    """Group effects as b = Lambda u at one theta.

    Attributes
    ----------
    effects : Effects
        The factors.
    rows : list of ndarray, shape (q, N)
        Z Lambda of every factor, one column for each row.
    products : ndarray, shape (q (q + 1) / 2, N)
        Products of the fine factor's columns.
    matrix : tuple of sparse matrices or None
        Z Lambda of the fine factor and of all others, where there are others.
    """

    effects: Effects
    rows: list[np.ndarray]
    products: np.ndarray
    matrix: tuple[sparse.csr_array, sparse.csr_array] | None

    def times(self, u: np.ndarray) -> np.ndarray:
        """Return Z Lambda u, shape (N,)."""
        eta = 0.0
        for factor, z in zip(self.effects.factors, self.rows, strict=True):
            values = u[factor.place].reshape(factor.J, -1)
            for k, column in enumerate(z):
                eta = eta + column * values[:, k].take(factor.index)
        return np.asarray(eta)

    def transposed(self, r: np.ndarray) -> np.ndarray:
        """Return Lambda'Z'r, shape (size,) or (size, m) for r of shape (N,) or (N, m)."""
        if r.ndim > 1:
            return np.column_stack([self.transposed(c) for c in r.T])
        found = [np.add.reduceat(self.rows[0] * r, self.effects.starts, axis=1).T.reshape(-1)]
        if self.matrix is not None:
            found.append(self.matrix[1].T @ r)
        return np.concatenate(found)

    def factored(self, w: np.ndarray) -> Factored:
        """Invert I + Lambda'Z'W Z Lambda for weights w of the rows."""
        sums = np.add.reduceat(self.products * w, self.effects.starts, axis=1)
        q = len(self.rows[0])
        M = np.empty((sums.shape[1], q, q))
        k = 0
        for a in range(q):
            for b in range(a + 1):
                M[:, a, b] = M[:, b, a] = sums[k]
                k += 1
            M[:, a, a] += 1.0
        U, log_det = _inverse_blocks(M)
        if self.matrix is None:
            return Factored(scaled=self, U=U, log_det=log_det, WB=None, rest=None)
        fine, rest = self.matrix
        weighted = sparse.csr_array(rest * w[:, None])
        B: Any = fine.T @ weighted
        A = (rest.T @ weighted).toarray()
        if B.nnz > DENSE_SHARE * B.shape[0] * B.shape[1]:
            B = B.toarray()
            WB: Any = np.matmul(U, B.reshape(*U.shape[:2], -1)).reshape(B.shape)
            A -= B.T @ WB
        else:
            WB = sparse.csr_array(block_diagonal(U) @ B)
            A -= (B.T @ WB).toarray()
        A[np.diag_indices_from(A)] += 1.0
        inverse, extra = _inverse_dense(A)
        return Factored(scaled=self, U=U, log_det=log_det + extra, WB=WB, rest=inverse)


def _inverse_blocks(M: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the inverse of every block and the sum of their log determinants."""
    q = M.shape[1]
    if q == 1:
        return 1.0 / M, float(np.log(np.abs(M)).sum())
    if q == 2:
        det = M[:, 0, 0] * M[:, 1, 1] - M[:, 0, 1] ** 2
        U = np.empty_like(M)
        U[:, 0, 0], U[:, 1, 1] = M[:, 1, 1] / det, M[:, 0, 0] / det
        U[:, 0, 1] = U[:, 1, 0] = -M[:, 0, 1] / det
        return U, float(np.log(np.abs(det)).sum())
    return np.linalg.inv(M), float(np.linalg.slogdet(M)[1].sum())


def _inverse_dense(A: np.ndarray) -> tuple[np.ndarray, float]:
    try:
        L = np.linalg.cholesky(A)
    except np.linalg.LinAlgError:
        return np.linalg.inv(A), float(np.linalg.slogdet(A)[1])
    from scipy.linalg import lapack

    inverse, _ = lapack.dpotri(np.asfortranarray(L), lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    return inverse, 2.0 * float(np.log(np.diagonal(L)).sum())


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Factored:
    """The inverse of M = I + Lambda'Z'W Z Lambda.

    Attributes
    ----------
    scaled : ScaledEffects
        Z Lambda.
    U : ndarray, shape (J, q, q)
        Inverse of the fine factor's blocks of M.
    log_det : float
        log|M|.
    WB : matrix, shape (J q, R), or None
        U times the part of M between the fine factor and the rest; dense or sparse.
    rest : ndarray, shape (R, R), or None
        The rest's part of the inverse of M.
    """

    scaled: ScaledEffects
    U: np.ndarray
    log_det: float
    WB: Any
    rest: np.ndarray | None

    def solve(self, g: np.ndarray) -> np.ndarray:
        """Return M^-1 g for g of shape (size,) or (size, m)."""
        J, q, _ = self.U.shape
        if self.rest is None and g.ndim == 1:
            if q == 1:
                return self.U[:, 0, 0] * g
            return np.einsum("jab,jb->ja", self.U, g.reshape(J, q)).reshape(-1)
        fine = g[: J * q]
        own = np.matmul(self.U, fine.reshape(J, q, -1)).reshape(fine.shape)
        if self.rest is None:
            return own
        below = self.rest @ (g[J * q :] - self.WB.T @ fine)
        return np.concatenate([own - self.WB @ below, below])

    def fine_to_rest(self) -> np.ndarray:
        """Return minus the part of the inverse between the fine factor and the rest."""
        return np.asarray(self.WB @ self.rest)

    def fine_blocks(self, across: np.ndarray | None = None) -> np.ndarray:
        """Return the fine factor's diagonal blocks of the inverse, shape (J, q, q)."""
        if self.rest is None:
            return self.U
        across = self.fine_to_rest() if across is None else across
        J, q, _ = self.U.shape
        blocks = self.U.copy()
        if isinstance(self.WB, np.ndarray):
            cut = (J, q, -1)
            return blocks + np.einsum("jar,jbr->jab", self.WB.reshape(cut), across.reshape(cut))
        for a in range(q):
            for b in range(q):
                blocks[:, a, b] += row_dots(self.WB[a::q], across[b::q])
        return blocks

    def projected(self) -> list[np.ndarray]:
        """Return the row's own block of M^-1 Lambda'z for every row and factor, (N, q) each.

        With m these vectors, z'Lambda m sums to the leverage z'Lambda M^-1 Lambda'z, and the
        weighted sum of z m' to the block of Z'W Z Lambda M^-1 that moves log|M| with Lambda.
        """
        factors, rows = self.scaled.effects.factors, self.scaled.rows
        z, index = rows[0], factors[0].index
        if self.rest is None:
            if len(z) == 1:
                return [(z[0] * self.U[:, 0, 0].take(index))[:, None]]
            return [np.einsum("nab,bn->na", self.U.take(index, axis=0), z)]
        across = self.fine_to_rest()
        found = [np.einsum("nab,bn->na", self.fine_blocks(across).take(index, axis=0), z)]
        q, first = len(z), factors[0].place.stop
        at_fine = index[:, None] * q + np.arange(q)
        others = [
            (f.place.start - first + f.index[:, None] * len(r) + np.arange(len(r)), r)
            for f, r in zip(factors[1:], rows[1:], strict=True)
        ]
        for at, r in others:
            part = across[at_fine[:, :, None], at[:, None, :]]
            found[0] -= np.einsum("nab,bn->na", part, r)
            own = -np.einsum("nab,an->nb", part, z)
            for other, s in others:
                own += np.einsum("nab,bn->na", self.rest[at[:, :, None], other[:, None, :]], s)
            found.append(own)
        return found

    def own_blocks(self) -> list[np.ndarray]:
        """Return each level's diagonal block of the inverse, (J, q, q) for every factor."""
        found = [self.fine_blocks()]
        factors = self.scaled.effects.factors
        first = factors[0].place.stop
        for factor in factors[1:]:
            at = np.arange(factor.place.start, factor.place.stop).reshape(factor.J, -1) - first
            assert self.rest is not None
            found.append(self.rest[at[:, :, None], at[:, None, :]])
        return found
