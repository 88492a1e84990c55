"""Exact draws of the group effects from p(b | y, beta, D, sigma)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np

from hmlm.design import Block, Design
from hmlm.likelihoods.buffer import Buffer
from hmlm.likelihoods.crossed import Crossed
from hmlm.likelihoods.crossproducts import OneFactor
from hmlm.likelihoods.gaussian import bases_of, blocks_of, known_sigma2
from hmlm.likelihoods.kernel import HEADER, LEVEL
from hmlm.likelihoods.posterior import level_rows
from hmlm.likelihoods.profiled import GaussianSums
from hmlm.likelihoods.tree import Tree

NUMBERS_AT_ONCE = 20_000_000


def draw_effects(
    design: Design,
    sums: GaussianSums,
    parameters: Mapping[str, np.ndarray],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Draw group effects, one for each draw of the parameters.

    The posterior factors as p(b | y, theta) p(theta | y): with theta sampled and b integrated out,
    a draw from the Gaussian p(b | y, theta) completes a draw from the joint posterior.

    Parameters
    ----------
    design : Design
        The model.
    sums : OneFactor, Tree or Crossed
        Its data.
    parameters : mapping of str to ndarray
        ``beta``, ``sd_<group>``, ``cor_<group>``, ``sigma`` (unless it is known) and the
        ``b_<group>`` that were sampled, the draw on the first axis.
    rng : numpy.random.Generator
        Source of the random numbers.

    Returns
    -------
    dict of str to ndarray
        ``b_<group>``, shape (draws, J, q), on the user's scale, of the factors that were
        integrated out.
    """
    sigma, V = _sigma_and_v(design, sums, parameters)
    if isinstance(sums, Crossed):
        return _fine(sums, parameters, sigma, V, rng)
    Lambdas = _lambdas(design, sums, parameters, sigma)
    return _by_block(design, sums, _draw(level_rows(sums, shared=False), V, Lambdas, sigma, rng))


def draw_effect_parts(
    design: Design,
    sums: OneFactor | Tree,
    parameters: Mapping[str, np.ndarray],
    seed: int,
    at_once: int,
) -> Iterator[dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Draw group effects a part of the groups at a time, so that memory does not grow with them.

    Given the parameters, groups of the coarsest factor are independent, each with all that is
    nested in it.

    Parameters
    ----------
    design, sums, parameters
        As in `draw_effects`; every factor lies within the next, see `can_be_parted`.
    seed : int
        Each part has random numbers of its own, made from it.
    at_once : int
        About how many groups of the finest factor a part has.

    Yields
    ------
    dict of str to (ndarray, ndarray)
        By grouping factor: the positions of its levels, shape (K,), and draws of their effects,
        shape (draws, K, q), on the user's scale.
    """
    sigma, V = _sigma_and_v(design, sums, parameters)
    Lambdas = _lambdas(design, sums, parameters, sigma)
    whole = level_rows(sums, shared=False)
    blocks, bases = blocks_of(sums, design), bases_of(sums)
    orders = (
        [np.arange(len(blocks[0].levels))]
        if isinstance(sums, OneFactor)
        else [level.order for level in sums.levels]
    )
    for number, cuts in enumerate(_parts(whole, at_once)):
        rows = [_slice_row(row, cut, outer) for row, cut, outer in cuts]
        out = _draw(rows, V, Lambdas, sigma, np.random.default_rng([seed, 2, number]))
        found, at = {}, 0
        for block, T, order, (_, cut, _) in zip(blocks, bases, orders, cuts, strict=True):
            places, q = order[cut], len(block.columns)
            shaped = out[:, at : at + len(places) * q].reshape(len(out), len(places), q)
            found[block.group] = (places, shaped @ T.T)
            at += len(places) * q
        yield found


def can_be_parted(sums: GaussianSums) -> bool:
    """Whether the groups fall into parts that are independent given the parameters."""
    if isinstance(sums, Tree):
        return bool(sums.levels) and all(level.copies == (1,) for level in sums.levels)
    return isinstance(sums, OneFactor)


def _parts(
    whole: list[list[int | np.ndarray]], at_once: int
) -> Iterator[list[tuple[list[int | np.ndarray], slice, slice]]]:
    """Yield the rows of all levels, each with the groups that a part takes of it and of the next.

    Levels run from the finest to the coarsest, and groups are ordered by their parent.
    """
    finest = int(whole[0][0])
    # Where each group of the coarsest factor begins, in the coarsest level and then in finer ones.
    first = np.arange(int(whole[-1][0]) + 1)
    edges = [first]
    for row in reversed(whole[:-1]):
        edges.append(np.searchsorted(np.asarray(row[5]), edges[-1]))
    cuts = np.searchsorted(edges[-1], np.arange(0, finest, at_once), side="left")
    for a, b in pairwise(np.unique([*cuts, len(first) - 1])):
        slices = [slice(int(e[a]), int(e[b])) for e in reversed(edges)]
        yield list(zip(whole, slices, [*slices[1:], slice(0, 1)], strict=True))


def _slice_row(row: list[int | np.ndarray], cut: slice, outer: slice) -> list[int | np.ndarray]:
    """Return the row of the level table for some groups of a level."""
    _, q, width, S, B, parent, _ = row
    S, B, parent = (np.ascontiguousarray(np.asarray(v)[cut]) for v in (S, B, parent))
    return [len(S), q, width, S, B, parent - outer.start, outer.stop - outer.start]


def _sigma_and_v(
    design: Design, sums: GaussianSums, parameters: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return sigma, shape (draws,), and what turns columns into residuals, (draws, p + 1)."""
    sigma2, n_draws = known_sigma2(design), len(next(iter(parameters.values())))
    known = np.full(n_draws, 0.0 if sigma2 is None else np.sqrt(sigma2))
    sigma = np.ascontiguousarray(parameters.get("sigma", known), dtype=float)
    V = np.ones((n_draws, sums.MM.shape[0]))
    if design.terms:
        basis = sums.basis
        # gamma = R (beta - beta_ols) on the orthogonal columns
        V[:, :-1] = -(parameters["beta"] - basis.beta) @ basis.R.T
    return sigma, V


def _draw(
    rows: list[list[int | np.ndarray]],
    V: np.ndarray,
    Lambdas: np.ndarray,
    sigma: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw the effects of all levels, shape (draws, sum of J q), a few draws at a time."""
    from hmlm.likelihoods.density import draw_tree_effects

    buffer = _buffer(rows)
    n_effects = sum(int(row[0]) * int(row[1]) for row in rows)
    out = np.empty((len(V), n_effects))
    step = max(1, NUMBERS_AT_ONCE // max(n_effects, 1))
    for start in range(0, len(V), step):
        part = slice(start, start + step)
        normals = rng.standard_normal(out[part].shape)
        draw_tree_effects(
            buffer, len(rows), V[part], Lambdas[part], sigma[part], normals, out[part]
        )
    return out


def _fine(
    sums: Crossed,
    parameters: Mapping[str, np.ndarray],
    sigma: np.ndarray,
    V: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Draw the effects of the factor that was integrated out, given the sampled ones."""
    from hmlm.likelihoods.density import draw_fine_given_rest

    group, T = sums.fine.group, sums.fine_T
    J, q = len(sums.fine.levels), len(sums.fine.columns)
    Lambda = _own_lambda(sums.fine, T, parameters, sigma).reshape(len(sigma), -1)
    out = np.empty((len(sigma), J * q))
    step = max(1, NUMBERS_AT_ONCE // (J * q))
    for start in range(0, len(sigma), step):
        part = slice(start, start + step)
        rest = [
            (parameters[f"b_{b.group}"][part] @ np.linalg.inv(basis).T).reshape(
                -1, len(b.levels) * len(b.columns)
            )
            for b, basis in zip(sums.rest, sums.rest_T, strict=True)
        ]
        draw_fine_given_rest(
            sums.S,
            sums.ZM,
            sums.ZR.indptr,
            sums.ZR.indices,
            sums.ZR.data,
            V[part],
            np.ascontiguousarray(np.concatenate(rest, axis=1)),
            Lambda[part],
            sigma[part],
            rng.standard_normal(out[part].shape),
            out[part],
        )
    return {f"b_{group}": out.reshape(len(sigma), J, q) @ T.T}


def _own_lambda(
    block: Block, T: np.ndarray, parameters: Mapping[str, np.ndarray], sigma: np.ndarray
) -> np.ndarray:
    """Relative Cholesky factors of one block in the conditioned basis, shape (draws, q, q)."""
    sd = parameters[f"sd_{block.group}"]
    q = sd.shape[1]
    if block.correlated:
        half = np.linalg.cholesky(parameters[f"cor_{block.group}"])
    else:
        half = np.broadcast_to(np.eye(q), (len(sd), q, q))
    return np.linalg.inv(T) @ (sd[:, :, None] * half) / sigma[:, None, None]


def _buffer(rows: list[list[int | np.ndarray]]) -> np.ndarray:
    out = Buffer(HEADER + LEVEL * len(rows))
    table = np.zeros(HEADER + LEVEL * len(rows))
    for ell, row in enumerate(rows):
        at = HEADER + LEVEL * ell
        table[at : at + len(row)] = [v if isinstance(v, int) else out.add(v) for v in row]
    return out.finish(table)


def _lambdas(
    design: Design,
    sums: OneFactor | Tree,
    parameters: Mapping[str, np.ndarray],
    sigma: np.ndarray,
) -> np.ndarray:
    """Relative Cholesky factors of every level, flat, shape (draws, sum of q^2)."""
    own = [
        _own_lambda(block, T, parameters, sigma)
        for block, T in zip(blocks_of(sums, design), bases_of(sums), strict=True)
    ]
    if isinstance(sums, OneFactor):
        return np.ascontiguousarray(own[0].reshape(len(sigma), -1))
    flat, at = [], 0
    for level in sums.levels:
        Lambda = np.zeros((len(sigma), level.q, level.q))
        first = 0
        for copies in level.copies:
            size = own[at].shape[1]
            for _ in range(copies):
                Lambda[:, first : first + size, first : first + size] = own[at]
                first += size
            at += 1
        flat.append(Lambda.reshape(len(sigma), -1))
    return np.ascontiguousarray(np.concatenate(flat, axis=1))


def _by_block(design: Design, sums: OneFactor | Tree, out: np.ndarray) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    bases = iter(bases_of(sums))
    if isinstance(sums, OneFactor):
        block = design.blocks[0]
        shaped = out.reshape(len(out), len(block.levels), len(block.columns))
        return {f"b_{block.group}": shaped @ next(bases).T}
    at = 0
    for level in sums.levels:
        for block in level.blocks:
            J, q = len(block.levels), len(block.columns)
            shaped = out[:, at : at + J * q].reshape(len(out), J, q) @ next(bases).T
            if level.copies == (1,):
                ordered = np.empty_like(shaped)
                ordered[:, level.order] = shaped
                shaped = ordered
            found[f"b_{block.group}"] = shaped
            at += J * q
    return {f"b_{b.group}": found[f"b_{b.group}"] for b in design.blocks}
