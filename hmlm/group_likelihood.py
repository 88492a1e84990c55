"""The likelihood of each whole group, its effects integrated out, at draws of the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from hmlm.design import Block, Design, find_block
from hmlm.likelihoods.structure import parent_of
from hmlm.log_likelihood import log_density
from hmlm.new_rows import new_rows
from hmlm.prediction import effect_covariance, family_values, linear_predictors

Draws = Mapping[str, np.ndarray]
NUMBERS_AT_ONCE = 4_000_000
NEWTON_STEPS = 12
LONGEST_STEP = 3.0
STEP = 1e-4
IMPORTANCE_DRAWS = 100
NODES = (15, 9)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Inside:
    """A block of effects that lies inside the groups, and so is left out with them.

    Attributes
    ----------
    number : int
        Its linear predictor.
    name : str
        Name of its effects.
    block : Block
        The block.
    root : ndarray, shape (draws, q, q)
        Root of the covariance of its effects.
    """

    number: int
    name: str
    block: Block
    root: np.ndarray


def blocks_inside(design: Design, group: str, posterior: Draws) -> list[Inside]:
    """Return the blocks of all predictors whose levels each lie in one level of a factor."""
    outer = find_block(design, group)
    found = []
    for number, p in enumerate(design.predictors):
        for block in p.blocks:
            same = block.group == group
            if not same and parent_of(block, outer) is None:
                continue
            g = block.group
            D = effect_covariance(posterior, p.named(f"sd_{g}"), p.named(f"cor_{g}"))
            values, vectors = np.linalg.eigh(D)
            root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
            name = p.named(f"b_{g}")
            found.append(Inside(number=number, name=name, block=block, root=root))
    return found


def integrate_groups(design: Design, posterior: Draws, group: str) -> np.ndarray:
    r"""Return log p(y_j | theta) of every level j of a grouping factor at every draw.

    The effects of the group, and of factors nested in it, are integrated out: exactly where the
    outcome is gaussian with an identity link and one sigma; else by adaptive Gauss-Hermite
    quadrature for one or two effects [1]_, and by importance draws about the mode for more.
    Effects of factors that are crossed with it are given, as drawn.

    Parameters
    ----------
    design : Design
        What was fitted, with partial pooling.
    posterior : mapping of str to ndarray
        Draws of every variable, the draw on the first axis.
    group : str
        The grouping factor.

    Returns
    -------
    ndarray, shape (draws, J)
        Log likelihoods.

    References
    ----------
    .. [1] Pinheiro and Bates (1995), Approximations to the log-likelihood function in the
       nonlinear mixed-effects model, Journal of Computational and Graphical Statistics 4, 12-35.

    Examples
    --------
    >>> import numpy as np
    >>> import hmlm
    >>> from hmlm.group_likelihood import integrate_groups
    >>> model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    >>> ml = model.fit(hmlm.ML())
    >>> at = {name: np.asarray(value)[None] for name, value in ml.estimates.items()}
    >>> bool(np.isclose(integrate_groups(model.design, at, "Batch").sum(), ml.log_likelihood))
    True
    """
    inside = blocks_inside(design, group, posterior)
    without = dict(posterior)
    for block in inside:
        shape = (len(block.root), len(block.block.levels), len(block.block.columns))
        without[block.name] = np.broadcast_to(0.0, shape)
    outer = find_block(design, group)
    rows = new_rows(design, None, "include")
    order = np.argsort(outer.index, kind="stable")
    starts = np.searchsorted(outer.index[order], np.arange(len(outer.levels) + 1))
    n_draws = len(inside[0].root)
    out = np.empty((n_draws, len(outer.levels)))
    for j in range(len(outer.levels)):
        members = order[starts[j] : starts[j + 1]]
        columns = [_columns(block, members) for block in inside]
        width = sum(Z.shape[1] * Z.shape[2] for Z in columns)
        size = max(1, NUMBERS_AT_ONCE // (len(members) * max(width, 1) + width**2))
        for first in range(0, n_draws, size):
            draws = slice(first, first + size)
            given = {name: values[draws] for name, values in without.items()}
            etas = linear_predictors(design, given, rows, members, None)  # type: ignore[arg-type]
            A = _loadings(columns, inside, draws, len(etas))
            out[draws, j] = _one_group(design, given, etas, A, members)
    return out


def _columns(block: Inside, members: np.ndarray) -> np.ndarray:
    """Return Z of the rows, spread over the levels that they have: shape (n, levels, q)."""
    levels, place = np.unique(block.block.index[members], return_inverse=True)
    wide = np.zeros((len(members), len(levels), len(block.block.columns)))
    wide[np.arange(len(members)), place] = block.block.Z[members]
    return wide


def _loadings(
    columns: list[np.ndarray], inside: list[Inside], draws: slice, predictors: int
) -> list[np.ndarray]:
    """Return what standard normal effects are multiplied with, (draws, n, M) a predictor."""
    pieces: list[list[np.ndarray]] = [[] for _ in range(predictors)]
    n_draws = len(inside[0].root[draws])
    for Z, block in zip(columns, inside, strict=True):
        own = np.einsum("nlq,sqk->snlk", Z, block.root[draws], optimize=True)
        own = own.reshape(n_draws, len(Z), -1)
        for number in range(predictors):
            pieces[number].append(own if number == block.number else np.zeros_like(own))
    return [np.concatenate(some, axis=2) for some in pieces]


def _one_group(
    design: Design,
    posterior: Draws,
    etas: list[np.ndarray],
    A: list[np.ndarray],
    members: np.ndarray,
) -> np.ndarray:
    family = design.spec.family
    y = design.y[members]
    trials = None if design.trials is None else design.trials[members]
    weights = None if design.weights is None else design.weights[members]
    if str(family) == "gaussian" and not design.distributional:
        sigma = np.ones(len(A[0])) if design.known_se else posterior["sigma"]
        w = np.ones(len(y)) if weights is None else weights
        return _gaussian(y - etas[0], A[0], sigma, w)

    def density(moved: list[np.ndarray]) -> np.ndarray:
        return log_density(
            family,
            y,
            moved,
            family_values(design, posterior, moved),
            trials=trials,
            weights=weights,
            cutpoints=posterior.get("cutpoints"),
        )

    def at(u: np.ndarray) -> list[np.ndarray]:
        return [eta + np.einsum("snm,sm->sn", a, u) for eta, a in zip(etas, A, strict=True)]

    mode, H = _mode(density, at, A)
    return _quadrature(density, at, mode, H)


def _gaussian(r: np.ndarray, A: np.ndarray, sigma: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the log density of N(0, sigma^2 / w + A A') by M x M matrices."""
    scaled = A * (np.sqrt(w)[:, None] / sigma[:, None, None])
    z = r * np.sqrt(w) / sigma[:, None]
    M = np.eye(A.shape[2]) + np.swapaxes(scaled, 1, 2) @ scaled
    L = np.linalg.cholesky(M)
    pull = np.linalg.solve(L, np.einsum("snm,sn->sm", scaled, z)[..., None])[..., 0]
    log_det = 2.0 * np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1)
    log_det += 2.0 * r.shape[1] * np.log(sigma) - np.log(w).sum()
    square = (z**2).sum(axis=1) - (pull**2).sum(axis=1)
    return np.asarray(-0.5 * (r.shape[1] * np.log(2 * np.pi) + log_det + square))


def _mode(density, at, A):  # type: ignore[no-untyped-def]
    """Find the mode of the standard normal effects by Newton's method, and its curvature."""
    n_draws, M = A[0].shape[0], A[0].shape[2]
    u = np.zeros((n_draws, M))
    for _ in range(NEWTON_STEPS):
        etas = at(u)
        middle = density(etas)
        gradient, H = -u, np.broadcast_to(np.eye(M), (n_draws, M, M)).copy()
        for number, a in enumerate(A):
            if not a.any():
                continue
            up, down = list(etas), list(etas)
            up[number], down[number] = etas[number] + STEP, etas[number] - STEP
            high, low = density(up), density(down)
            slope = (high - low) / (2 * STEP)
            curve = np.maximum((2 * middle - high - low) / STEP**2, 0.0)
            gradient = gradient + np.einsum("snm,sn->sm", a, slope)
            H += np.swapaxes(a, 1, 2) @ (a * curve[..., None])
        step = np.linalg.solve(H, gradient[..., None])[..., 0]
        length = np.sqrt((step**2).sum(axis=1, keepdims=True))
        u = u + step * np.minimum(1.0, LONGEST_STEP / np.maximum(length, 1e-300))
        if length.max() < 1e-6:
            break
    return u, H


def _nodes(M: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points and logarithms of weights for one or two standard normal variables."""
    x, w = np.polynomial.hermite_e.hermegauss(NODES[M - 1])
    w = np.log(w / w.sum())
    if M == 1:
        return x[:, None], w
    grid = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)
    return grid, (w[:, None] + w).reshape(-1)


def _quadrature(density, at, mode, H):  # type: ignore[no-untyped-def]
    """Integrate the effects about their mode."""
    M = mode.shape[1]
    root = np.linalg.inv(np.linalg.cholesky(H))
    if M <= 2:
        nodes, log_weights = _nodes(M)
        wide = 1.0
    else:
        nodes = np.random.default_rng(0).standard_normal((IMPORTANCE_DRAWS, M))
        nodes = np.concatenate([nodes, -nodes])
        log_weights = np.full(len(nodes), -np.log(len(nodes)))
        wide = 1.15
    log_det = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1) + M * np.log(wide)
    terms = np.empty((len(nodes), len(mode)))
    for k, z in enumerate(nodes):
        u = mode + wide * np.einsum("smk,m->sk", root, z)
        prior = -0.5 * (u**2).sum(axis=1) + 0.5 * (z**2).sum()
        terms[k] = density(at(u)).sum(axis=1) + prior + log_weights[k]
    return special.logsumexp(terms, axis=0) + log_det
