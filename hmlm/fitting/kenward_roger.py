"""Kenward and Roger's covariance and degrees of freedom of the population coefficients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from hmlm.design import Design
from hmlm.errors import HmlmError
from hmlm.likelihoods.gaussian import bases_of, blocks_of
from hmlm.likelihoods.profiled import GaussianSums, ProfiledPoint, shapes_of, split_theta

MOST_EFFECTS = 3_000
MOST_NUMBERS = 30_000_000


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Parcel:
    """Independent parts of the data that have the same numbers of levels of every factor.

    Attributes
    ----------
    S : ndarray, shape (C, R, R)
        Z'Z of each part, R its number of group effects.
    B : ndarray, shape (C, R, p)
        Its Z'X.
    places : tuple of ndarray of int, each of shape (J_k, q_k)
        For each factor the places of its effects among the R.
    """

    S: np.ndarray
    B: np.ndarray
    places: tuple[np.ndarray, ...]


def kenward_roger(
    design: Design, sums: GaussianSums, theta: np.ndarray, point: ProfiledPoint
) -> tuple[np.ndarray, np.ndarray]:
    """Adjust the covariance of the coefficients for the variances being estimated.

    With Sigma = sum_r gamma_r G_r the covariance of the outcome, linear in the entries of the
    covariance matrices of the group effects and the residual variance, Phi = (X'Sigma^-1 X)^-1,
    P_r = -X'Sigma^-1 G_r Sigma^-1 X, Q_rs = X'Sigma^-1 G_r Sigma^-1 G_s Sigma^-1 X and W the
    inverse of the expected information of gamma under REML, the adjusted covariance is

        Phi + 2 Phi {sum_rs W_rs (Q_rs - P_r Phi P_s)} Phi,

    and a single coefficient has 2 / A degrees of freedom, A = sum_rs W_rs t_r t_s / Phi_kk^2 with
    t_r = (Phi P_r Phi)_kk (Kenward & Roger 1997; Halekoh & Hojsgaard 2014, `pbkrtest` in R).
    Every N x N matrix reduces to the group effects, for each connected part of the data. Where
    the standard errors of the outcome are known, gamma has no residual variance.

    Parameters
    ----------
    design : Design
        What was fitted.
    sums : OneFactor, Tree or Crossed
        The data.
    theta : ndarray
        The optimum of REML.
    point : ProfiledPoint
        The likelihood there.

    Returns
    -------
    vcov : ndarray, shape (p, p)
        The adjusted covariance.
    df : ndarray, shape (p,)
        Degrees of freedom.

    Raises
    ------
    HmlmError
        If too many group effects hang together for dense matrices.
    """
    p = len(point.gamma)
    if p == 0:
        return np.empty((0, 0)), np.empty(0)
    Lambdas = [
        shape.unpack(part)
        for shape, part in zip(shapes_of(sums), split_theta(theta, sums), strict=True)
    ]
    # The free entries of D: block, row and column.
    entries = [
        (k, int(a), int(b))
        for k, shape in enumerate(shapes_of(sums))
        for a, b in zip(shape.rows, shape.columns, strict=True)
    ]
    n_gamma = len(entries) + 1
    P = np.zeros((n_gamma, p, p))
    Q = np.zeros((n_gamma, n_gamma, p, p))
    trace = np.zeros((n_gamma, n_gamma))
    # X here are the orthogonal columns, X'X = n I; first the parts of the residual's G = I.
    XVX = np.eye(p) * sums.n
    XV2X, XV3X = np.zeros((2, p, p))
    effects, trace_V2 = 0, 0.0
    for parcel in _parcels(design, sums):
        S, B = parcel.S, parcel.B
        L = np.zeros_like(S[0])
        for Lambda, places in zip(Lambdas, parcel.places, strict=True):
            L[places[:, :, None], places[:, None, :]] = Lambda
        A_inverse = np.linalg.inv(np.eye(len(L)) + L.T @ S @ L)
        W = L @ A_inverse @ L.T
        SW = S @ W
        # Z'V^-1 X, Z'V^-2 X, Z'V^-1 Z and Z'V^-2 Z, with V = Sigma / sigma^2.
        Y1, M1 = B - SW @ B, S - SW @ S
        Y2, M2 = Y1 - SW @ Y1, M1 - SW @ M1
        WB = np.swapaxes(W @ B, 1, 2)
        XVX -= (WB @ B).sum(axis=0)
        XV2X -= (WB @ Y1).sum(axis=0)
        XV3X -= (WB @ Y2).sum(axis=0)
        effects += S.shape[0] * S.shape[1]
        trace_V2 += float((A_inverse**2).sum())
        pairs = [_ordered_pairs(parcel.places[k], a, b) for k, a, b in entries]
        for r, (i, j) in enumerate(pairs):
            left = np.swapaxes(Y1[:, i], 1, 2)
            P[r] -= (left @ Y1[:, j]).sum(axis=0)
            Q[r, -1] += (left @ Y2[:, j]).sum(axis=0)
            trace[r, -1] += float(M2[:, i, j].sum())
            for s, (k, m) in enumerate(pairs[: r + 1]):
                middle = M1[:, j[:, None], k]
                Q[r, s] += (left @ middle @ Y1[:, m]).sum(axis=0)
                trace[r, s] += float((middle * M1[:, i[:, None], m]).sum())
    XV2X += XVX
    XV3X += XV2X
    P[-1], Q[-1, -1], trace[-1, -1] = -XV2X, XV3X, sums.n - effects + trace_V2
    for r in range(n_gamma):
        for s in range(r):
            if r == n_gamma - 1:
                Q[r, s], trace[r, s] = Q[s, r].T, trace[s, r]
            else:
                Q[s, r], trace[s, r] = Q[r, s].T, trace[r, s]
    free = slice(0, n_gamma - design.known_se)
    return _adjust(point, sums, P[free], Q[free, free], trace[free, free])


def _adjust(
    point: ProfiledPoint, sums: GaussianSums, P: np.ndarray, Q: np.ndarray, trace: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Put the pieces together, all for sigma^2 = 1."""
    Phi = point.K_inverse
    PhiP = Phi @ P
    information = trace - 2 * np.einsum("ab,rsba->rs", Phi, Q)
    information += np.einsum("rab,sba->rs", PhiP, PhiP)
    scale = 1 / np.sqrt(np.diagonal(trace))
    W = 2 * np.linalg.pinv(information * np.outer(scale, scale), rcond=1e-10, hermitian=True)
    W *= np.outer(scale, scale)
    inner = np.einsum("rs,rsab->ab", W, Q) - np.einsum("rs,rab,sbc->ac", W, P, PhiP, optimize=True)
    adjusted = Phi + Phi @ (inner + inner.T) @ Phi
    to_user = sums.basis.covariance_to_user
    t = np.array([np.diagonal(to_user(one @ Phi)) for one in PhiP])
    A = np.einsum("rs,rk,sk->k", W, t, t) / np.diagonal(to_user(Phi)) ** 2
    with np.errstate(divide="ignore"):
        return point.sigma2 * to_user(adjusted), 2 / A


def _ordered_pairs(places: np.ndarray, a: int, b: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where the derivative of D by its entry (a, b) is one."""
    if a == b:
        return places[:, a], places[:, a]
    return (
        np.concatenate([places[:, a], places[:, b]]),
        np.concatenate([places[:, b], places[:, a]]),
    )


def _parcels(design: Design, sums: GaussianSums) -> Iterator[Parcel]:
    """Cut the data into parts that share no group, and gather parts of the same make-up."""
    blocks = blocks_of(sums, design)
    root = sums.basis.root_weights
    n = len(sums.basis.Q)
    first_level = np.cumsum([0, *(len(b.levels) for b in blocks)])
    nodes = [b.index + start for b, start in zip(blocks, first_level, strict=False)]
    links = sparse.coo_array(
        (
            np.ones(n * len(blocks)),
            (np.tile(nodes[0], len(blocks)), np.concatenate(nodes)),
        ),
        shape=(first_level[-1], first_level[-1]),
    )
    n_parts, part = connected_components(links, directed=False)
    counts = np.array([np.bincount(part[a:b], minlength=n_parts) for a, b in pairwise(first_level)])
    sizes = np.array([len(b.columns) for b in blocks]) @ counts
    if sizes.max() > MOST_EFFECTS or float((sizes.astype(float) ** 2).sum()) > MOST_NUMBERS:
        raise HmlmError(
            f"Kenward and Roger's adjustment needs dense matrices of {sizes.max():,} group effects "
            f"that hang together, {sizes.sum():,} in all: too many. Use df='satterthwaite', which "
            "agrees with it where groups are many."
        )
    # Where every effect stands inside its part: factor by factor, level by level.
    pieces, part_of, local = [], [], []
    before = np.zeros(n_parts, dtype=np.int64)
    for block, T, count, start in zip(blocks, bases_of(sums), counts, first_level, strict=False):
        q, J = len(block.columns), len(block.levels)
        Z = block.Z @ T if root is None else root[:, None] * (block.Z @ T)
        columns = (block.index[:, None] * q + np.arange(q)).reshape(-1)
        pieces.append(
            sparse.csr_array((Z.reshape(-1), columns, np.arange(0, n * q + 1, q)), shape=(n, J * q))
        )
        mine = part[start : start + J]
        order = np.argsort(mine, kind="stable")
        rank = np.empty(J, dtype=np.int64)
        rank[order] = np.arange(J) - np.repeat(np.cumsum(count) - count, count)
        part_of.append(np.repeat(mine, q))
        local.append((before[mine] + rank * q)[:, None] + np.arange(q))
        before += count * q
    at, owner = np.concatenate([a.reshape(-1) for a in local]), np.concatenate(part_of)
    Z_all = sparse.csr_array(sparse.hstack(pieces, format="csr"))
    ZX = Z_all.T @ sums.basis.Q
    ZZ = sparse.coo_array(Z_all.T @ Z_all)
    row, column = ZZ.coords
    kinds, kind_of = np.unique(counts, axis=1, return_inverse=True)
    kind_of = kind_of.reshape(-1)
    for kind in range(kinds.shape[1]):
        members = np.flatnonzero(kind_of == kind)
        position = np.full(n_parts, -1)
        position[members] = np.arange(len(members))
        R = int(sizes[members[0]])
        S, B = np.zeros((len(members), R, R)), np.zeros((len(members), R, ZX.shape[1]))
        inside = position[owner[row]] >= 0
        S[position[owner[row[inside]]], at[row[inside]], at[column[inside]]] = ZZ.data[inside]
        mine = position[owner] >= 0
        B[position[owner[mine]], at[mine]] = ZX[mine]
        start, places = 0, []
        for block, levels in zip(blocks, kinds[:, kind], strict=True):
            q = len(block.columns)
            places.append(start + np.arange(levels * q).reshape(levels, q))
            start += levels * q
        yield Parcel(S=S, B=B, places=tuple(places))
