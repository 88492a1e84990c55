"""Crossed factors with many levels: one is eliminated by blocks, the rest by a dense Cholesky.

As in MixedModels.jl the factor with the most effects goes first, where its block-diagonal form
costs nothing; the Schur complement on the other factors' effects is assembled sparsely and
factored densely.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import blas, lapack

from hmlm.design import Block, Design
from hmlm.likelihoods.covariance import (
    CovarianceShape,
    covariance_shape,
    factor_groups,
)
from hmlm.likelihoods.crossproducts import (
    PopulationBasis,
    conditioned,
    group_products,
    population_basis,
    squares,
    sum_log_weights,
)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class RowPairs:
    """Pairs of non-zero columns in the same row of a sparse matrix, i >= k.

    With them the diagonal of ``Z C Z'`` costs a look-up a pair instead of a product with all of C.

    Attributes
    ----------
    row : ndarray of int
        The row of every pair.
    first, second : ndarray of int
        Which of the matrix's values they are.
    place : ndarray of int
        Place of the pair's entry in a square matrix stored by columns, lower triangle.
    twice : ndarray
        Two where the columns differ, one where they are the same.
    """

    row: np.ndarray
    first: np.ndarray
    second: np.ndarray
    place: np.ndarray
    twice: np.ndarray


def row_pairs(Z: sparse.csr_array) -> RowPairs:
    """List the pairs of every row of a matrix in canonical format."""
    counts = np.diff(Z.indptr)
    row_of = np.repeat(np.arange(Z.shape[0]), counts)
    before = np.arange(Z.nnz) - Z.indptr[row_of]
    first = np.repeat(np.arange(Z.nnz), before + 1)
    within = np.arange(len(first)) - np.repeat(np.cumsum(before + 1) - (before + 1), before + 1)
    second = Z.indptr[row_of[first]] + within
    i, k = Z.indices[first].astype(np.int64), Z.indices[second].astype(np.int64)
    return RowPairs(
        row=row_of[first],
        first=first,
        second=second,
        place=k * Z.shape[1] + i,
        twice=np.where(first == second, 1.0, 2.0),
    )


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Crossed:
    """A Gaussian model with crossed factors, as sums.

    Attributes
    ----------
    n : int
        Number of rows.
    basis : PopulationBasis
        Population columns and outcome.
    fine : Block
        The factor that is eliminated first.
    rest : tuple of Block
        The other factors; their R effects stand one after the other.
    fine_shape, rest_shapes : CovarianceShape
        Free entries of Lambda of each.
    fine_T, rest_T : ndarray
        Change of basis of each block's Z.
    S : ndarray, shape (J, q, q)
        Z'Z of every level of `fine`.
    ZM : ndarray, shape (J, q, p + 1)
        Their Z'M.
    ZR : scipy.sparse.csr_array, shape (J q, R)
        Their Z'Z_rest.
    RR : scipy.sparse.csr_array, shape (R, R)
        Z_rest'Z_rest.
    RM : ndarray, shape (R, p + 1)
        Z_rest'M.
    MM : ndarray, shape (p + 1, p + 1)
        M'M.
    sum_log_weights : float
        Sum of the logarithms of the weights.
    pairs : RowPairs or None
        Pairs of Z'Z_rest's rows, where all effects are scalar and the pairs are few.
    """

    n: int
    basis: PopulationBasis
    fine: Block
    rest: tuple[Block, ...]
    fine_shape: CovarianceShape
    rest_shapes: tuple[CovarianceShape, ...]
    fine_T: np.ndarray
    rest_T: tuple[np.ndarray, ...]
    S: np.ndarray
    ZM: np.ndarray
    ZR: sparse.csr_array
    RR: sparse.csr_array
    RM: np.ndarray
    MM: np.ndarray
    sum_log_weights: float
    pairs: RowPairs | None


def make_crossed(design: Design, fine: Block, rest: tuple[Block, ...]) -> Crossed:
    """Sum a design with crossed factors."""
    basis = population_basis(design)
    M = np.column_stack([basis.Q, basis.residual])
    Z, T = conditioned(fine, basis)
    q = Z.shape[1]
    J = len(fine.levels)
    S, ZM = group_products(fine.index, Z, M, J)
    fine_matrix = _sparse(Z, fine.index, J)
    pieces, bases = [], []
    for block in rest:
        Zk, Tk = conditioned(block, basis)
        pieces.append(_sparse(Zk, block.index, len(block.levels)))
        bases.append(Tk)
    rest_matrix = sparse.csr_array(sparse.hstack(pieces, format="csr"))
    ZR = sparse.csr_array(fine_matrix.T @ rest_matrix)
    ZR.sort_indices()
    scalar = q == 1 and all(len(b.columns) == 1 for b in rest)
    few = scalar and float((np.diff(ZR.indptr).astype(float) ** 2).sum()) < ZR.nnz * ZR.shape[1] / 4
    return Crossed(
        n=design.n_rows,
        basis=basis,
        fine=fine,
        rest=rest,
        fine_shape=covariance_shape(fine.parts),
        rest_shapes=tuple(covariance_shape(b.parts) for b in rest),
        fine_T=T,
        rest_T=tuple(bases),
        S=S,
        ZM=ZM,
        ZR=ZR,
        RR=sparse.csr_array(rest_matrix.T @ rest_matrix),
        RM=rest_matrix.T @ M,
        MM=squares(design, M),
        sum_log_weights=sum_log_weights(design),
        pairs=row_pairs(ZR) if few else None,
    )


def _sparse(Z: np.ndarray, index: np.ndarray, levels: int) -> sparse.csr_array:
    n, q = Z.shape
    columns = (index[:, None] * q + np.arange(q)).reshape(-1)
    starts = np.arange(0, n * q + 1, q)
    return sparse.csr_array((Z.reshape(-1), columns, starts), shape=(n, levels * q))


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class CrossedState:
    """What the elimination leaves behind.

    Attributes
    ----------
    H, W : ndarray, shape (J, q, q)
        Lambda A^-1 and Lambda A^-1 Lambda' of the fine factor.
    L : scipy.sparse.csr_array, shape (R, R)
        Block-diagonal Lambda of the rest.
    Lambdas : list of ndarray
        Its distinct blocks.
    ZRL : scipy.sparse.csr_array, shape (J q, R)
        Z'Z_rest Lambda.
    A_inverse : ndarray, shape (R, R)
        Lower triangle of the inverse of A = I + Lambda'E Lambda, E the Schur complement on the
        rest.
    t : ndarray, shape (R, p + 1)
        A^-1 Lambda' Z_rest'V_fine^-1 M: spherical effects predicted from every column of M.
    F : ndarray, shape (J q, p + 1)
        Z'(M - Z_rest Lambda t).
    """

    H: np.ndarray
    W: np.ndarray
    L: sparse.csr_array
    Lambdas: list[np.ndarray]
    ZRL: sparse.csr_array
    A_inverse: np.ndarray
    t: np.ndarray
    F: np.ndarray

    def inverse(self) -> np.ndarray:
        """Return the whole of A^-1."""
        full = np.tril(self.A_inverse)
        full += np.tril(full, -1).T
        return full


def block_diagonal(blocks: np.ndarray) -> sparse.csr_array:
    """Return J blocks, shape (J, q, q), as one sparse block-diagonal matrix."""
    J, q, _ = blocks.shape
    columns = np.repeat(np.arange(J * q).reshape(J, q), q, axis=0).reshape(-1)
    return sparse.csr_array(
        (blocks.reshape(-1), columns, np.arange(0, J * q * q + 1, q)), shape=(J * q, J * q)
    )


def rest_slices(sums: Crossed) -> list[slice]:
    """Return where the effects of every rest block stand."""
    stops = np.cumsum([len(b.levels) * len(b.columns) for b in sums.rest])
    return [slice(int(a), int(b)) for a, b in zip([0, *stops[:-1]], stops, strict=True)]


def eliminate_crossed(
    sums: Crossed, thetas: list[np.ndarray]
) -> tuple[CrossedState, float, np.ndarray]:
    """Integrate the group effects out.

    Returns
    -------
    state : CrossedState
        What group effects and gradient follow from.
    log_det : float
        log|V|.
    K : ndarray, shape (p + 1, p + 1)
        M'V^-1 M.
    """
    Lambda = sums.fine_shape.unpack(thetas[0])
    J, q, m = sums.ZM.shape
    logs, H, W = factor_groups(sums.S, Lambda)
    log_det = float(logs.sum())
    ZM = sums.ZM.reshape(J * q, m)
    WZM = (W @ sums.ZM).reshape(J * q, m)
    Lambdas = [s.unpack(t) for s, t in zip(sums.rest_shapes, thetas[1:], strict=True)]
    L = block_diagonal_rest(sums, Lambdas)
    if sums.pairs is None:
        ZRL = sparse.csr_array(sums.ZR @ L)
        WZRL = sparse.csr_array(block_diagonal(W) @ ZRL)
    else:  # scalar effects: only the values change
        ZR = sums.ZR
        data = ZR.data * L.data[ZR.indices]
        ZRL = sparse.csr_array((data, ZR.indices, ZR.indptr), shape=ZR.shape)
        rows = np.repeat(W[:, 0, 0], np.diff(ZR.indptr))
        WZRL = sparse.csr_array((rows * data, ZR.indices, ZR.indptr), shape=ZR.shape)
    A = ((L.T @ sums.RR @ L) - ZRL.T @ WZRL).toarray(order="F")
    A[np.diag_indices_from(A)] += 1.0
    factor, info = lapack.dpotrf(A, lower=1, overwrite_a=1, clean=0)
    if info:
        raise np.linalg.LinAlgError("the crossed effects' matrix is not positive definite")
    log_det += 2 * float(np.log(np.diagonal(factor)).sum())
    A_inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    right = L.T @ sums.RM - WZRL.T @ ZM
    t = blas.dsymm(1.0, A_inverse, right, lower=1)
    K = sums.MM - ZM.T @ WZM - right.T @ t
    state = CrossedState(
        H=H,
        W=W,
        L=L,
        Lambdas=Lambdas,
        ZRL=ZRL,
        A_inverse=A_inverse,
        t=t,
        F=ZM - ZRL @ t,
    )
    return state, log_det, K


def block_diagonal_rest(sums: Crossed, Lambdas: list[np.ndarray]) -> sparse.csr_array:
    """Return the block-diagonal Lambda of all the rest's effects."""
    pieces = [
        block_diagonal(np.broadcast_to(Lambda, (len(b.levels), *Lambda.shape)))
        for b, Lambda in zip(sums.rest, Lambdas, strict=True)
    ]
    return sparse.csr_array(sparse.block_diag(pieces, format="csr"))


def pull_back_crossed(sums: Crossed, state: CrossedState, K_bar: np.ndarray) -> np.ndarray:
    """Return the derivative by theta of log|V| + <K_bar, K>."""
    J, q, m = sums.ZM.shape
    F = state.F.reshape(J, q, m)
    W_bar = -np.einsum("jar,rs,jbs->jab", F, K_bar, F, optimize=True)
    if sums.pairs is not None:
        # z' A^-1 z of every row of Z'Z_rest Lambda, by pairs of non-zero entries.
        at, data = sums.pairs, state.ZRL.data
        values = state.A_inverse.reshape(-1, order="F").take(at.place)
        values *= at.twice * data[at.first] * data[at.second]
        W_bar[:, 0, 0] -= np.bincount(at.row, weights=values, minlength=J)
    else:
        BE = state.ZRL @ state.inverse()
        for a in range(q):
            for b in range(q):
                W_bar[:, a, b] -= row_dots(state.ZRL[b::q], BE[a::q])
    inner = W_bar - sums.S @ (state.W @ W_bar) + sums.S
    gradients = [sums.fine_shape.pack(2 * np.einsum("jab,jbc->ac", inner, state.H))]
    # Z_rest'V_fine^-1 (M - Z_rest Lambda t), from which the rest's Lambdas move K.
    score = sums.RM - sums.RR @ (state.L @ state.t) - sums.ZR.T @ _W_times(state.W, state.F)
    for part, Lambda, shape in zip(rest_slices(sums), state.Lambdas, sums.rest_shapes, strict=True):
        size = len(Lambda)
        levels = (part.stop - part.start) // size
        quad = -2 * np.einsum(
            "jar,rs,jbs->ab",
            score[part].reshape(levels, size, m),
            K_bar,
            state.t[part].reshape(levels, size, m),
            optimize=True,
        )
        gradients.append(shape.pack(_log_det_part(sums, state, part, Lambda) + quad))
    return np.concatenate(gradients)


def _W_times(W: np.ndarray, X: np.ndarray) -> np.ndarray:
    J, q, _ = W.shape
    return (W @ X.reshape(J, q, -1)).reshape(J * q, -1)


def row_dots(rows: sparse.csr_array, dense: np.ndarray) -> np.ndarray:
    """Return the dot products of the rows of a sparse matrix with those of a dense one."""
    at = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    return np.bincount(at, weights=rows.data * dense[at, rows.indices], minlength=rows.shape[0])


def diagonal_blocks(matrix: np.ndarray, part: slice, size: int, levels: int) -> np.ndarray:
    """Return blocks on the diagonal of a matrix, shape (levels, size, size)."""
    at = np.arange(part.start, part.stop).reshape(levels, size)
    return matrix[at[:, :, None], at[:, None, :]]


def _log_det_part(
    sums: Crossed, state: CrossedState, part: slice, Lambda: np.ndarray
) -> np.ndarray:
    """Return the derivative of log|I + Lambda'E Lambda| by the Lambda of one rest block."""
    size = len(Lambda)
    levels = (part.stop - part.start) // size
    if np.abs(np.linalg.det(Lambda)) > 1e-8:
        # E Lambda A^-1 = Lambda^-T (A - I) A^-1 = Lambda^-T (I - A^-1): the diagonal suffices.
        blocks = diagonal_blocks(state.A_inverse, part, size, levels)
        total = np.tril(blocks.sum(axis=0))
        total += np.tril(total, -1).T
        return 2 * np.linalg.solve(Lambda.T, levels * np.eye(size) - total)
    columns = (state.L @ state.inverse())[:, part]
    EH = sums.RR[part] @ columns - sums.ZR[:, part].T @ _W_times(state.W, sums.ZR @ columns)
    at = np.arange(part.stop - part.start).reshape(levels, size)
    return 2 * EH[at[:, :, None], at[:, None, :]].sum(axis=0)
