"""The steps of a Gibbs sampler for a Gaussian model, for all chains at once.

Arrays have the chain on the first axis. Group effects and the Cholesky factors of their
covariances are on the conditioned basis of `hmlm.likelihoods.covariance.condition`, where b_j has
covariance L L' and D = T L L' T' on the user's scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from hmlm.likelihoods.gibbs_sums import GibbsSums, Part
from hmlm.priors import Prior

_LOG_PRIORS: Mapping[str, Callable[[np.ndarray, Mapping[str, float]], np.ndarray]] = (
    MappingProxyType(
        {
            "half-flat": lambda x, v: np.zeros_like(x),
            "half-normal": lambda x, v: -0.5 * (x / v["sigma"]) ** 2,
            "half-student-t": lambda x, v: (
                -0.5 * (v["nu"] + 1) * np.log1p((x / v["sigma"]) ** 2 / v["nu"])
            ),
            "half-cauchy": lambda x, v: -np.log1p((x / v["beta"]) ** 2),
            "exponential": lambda x, v: -v["lam"] * x,
            "gamma": lambda x, v: (v["alpha"] - 1) * np.log(x) - v["beta"] * x,
            "inverse-gamma": lambda x, v: -(v["alpha"] + 1) * np.log(x) - v["beta"] / x,
            "lognormal": lambda x, v: -0.5 * ((np.log(x) - v["mu"]) / v["sigma"]) ** 2 - np.log(x),
            "uniform": lambda x, v: np.where((v["lower"] <= x) & (x <= v["upper"]), 0.0, -np.inf),
        }
    )
)


def log_prior(prior: Prior, x: np.ndarray) -> np.ndarray:
    """Return the log density of a positive parameter's prior, to a constant.

    Examples
    --------
    >>> log_prior(Prior("uniform", lower=0, upper=2), np.array([1.0, 3.0]))
    array([  0., -inf])
    """
    return np.asarray(_LOG_PRIORS[prior.name](x, prior.parameters))


@dataclass(eq=False, kw_only=True, slots=True)
class State:
    """Where the chains are.

    Attributes
    ----------
    gamma : ndarray, shape (C, p)
        Coefficients of the columns of Q.
    b : list of ndarray, shape (C, J, q)
        Effects of every factor.
    L : list of ndarray, shape (C, q, q)
        Cholesky factors of their covariances.
    sigma : ndarray, shape (C,)
        Residual sds.
    omega : ndarray, shape (C, p)
        Scales of the normal distributions that a Student prior is a mixture of; ones elsewhere.
    accepted : ndarray, shape (C,)
        Metropolis-Hastings proposals accepted.
    proposed : int
        Proposals made.
    """

    gamma: np.ndarray
    b: list[np.ndarray]
    L: list[np.ndarray]
    sigma: np.ndarray
    omega: np.ndarray
    accepted: np.ndarray
    proposed: int = 0

    def accept(self, log_ratio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Decide on proposals, and keep count."""
        yes = np.log(rng.random(len(log_ratio))) < log_ratio
        self.accepted += yes
        self.proposed += 1
        return np.asarray(yes)


def start(sums: GibbsSums, chains: int, rng: np.random.Generator) -> State:
    """Return starting points, with variances scattered below that of the outcome."""
    spread = float(np.sqrt(sums.MM[-1, -1] / sums.n))
    L = []
    for factor in sums.factors:
        q = factor.shape[1]
        L.append(spread * rng.uniform(0.1, 1.0, (chains, q))[:, :, None] * np.eye(q))
    return State(
        gamma=np.zeros((chains, sums.p)),
        b=[np.zeros((chains, *f.shape)) for f in sums.factors],
        L=L,
        sigma=spread * rng.uniform(0.3, 1.2, chains),
        omega=np.ones((chains, sums.p)),
        accepted=np.zeros(chains),
    )


def iterate(sums: GibbsSums, state: State, rng: np.random.Generator) -> None:
    """Make one iteration of all chains.

    The effects of the first factor are integrated out until they are drawn, given all the rest.
    """
    half, K = _without_first(sums, state)
    _draw_rest(sums, state, K, rng)
    for k in range(1, len(sums.factors)):
        for part in sums.factors[k].parts:
            draw_covariance(state, k, part, rng)
            interweave(state, k, part, *_rest_products(sums, state, k, part, K), rng)
    _draw_first(sums, state, half, rng)
    for part in sums.factors[0].parts:
        draw_covariance(state, 0, part, rng)
        interweave(state, 0, part, *_first_products(sums, state, part), rng)
    draw_sigma(sums, state, rng)
    draw_mixture(sums, state, rng)


def _without_first(sums: GibbsSums, state: State) -> tuple[np.ndarray, np.ndarray]:
    """Integrate the first factor out.

    Returns
    -------
    half : ndarray, shape (C, G, q, q)
        ``half @ half.T`` is the conditional covariance of the effects of a level.
    K : ndarray, shape (C, m, m)
        M'V^-1 M, V the covariance of the outcome given everything else.
    """
    m, C, s2 = len(sums.MM), len(state.sigma), state.sigma[:, None, None] ** 2
    first, L = sums.factors[0], state.L[0][:, None]
    (J, q), G = first.shape, len(first.ZZ)
    A = np.eye(q) + np.swapaxes(L, 2, 3) @ (first.ZZ @ L) / s2[:, None]
    half = L @ np.swapaxes(np.linalg.inv(np.linalg.cholesky(A)), 2, 3)
    W = half @ np.swapaxes(half, 2, 3)
    if sums.pairs is not None:
        explained = (W.reshape(C, G * q * q) @ sums.pairs).reshape(C, m, m)
    else:
        WZM = W[:, first.which] @ sums.ZM
        explained = sums.ZM.reshape(J * q, m).T @ WZM.reshape(C, J * q, m)
    return half, (sums.MM - explained / s2) / s2


def _draw_rest(sums: GibbsSums, state: State, K: np.ndarray, rng: np.random.Generator) -> None:
    """Draw coefficients and effects of all factors but the first, together."""
    p, (C, m) = sums.p, K.shape[:2]
    K = np.array(K)
    # Effects as standard normals times L.
    for place, factor, L in zip(sums.places, sums.factors[1:], state.L[1:], strict=True):
        J, q = factor.shape
        K[:, :, place] = (K[:, :, place].reshape(C, m, J, q) @ L[:, None]).reshape(C, m, -1)
        rows = K[:, place].reshape(C, J, q, m)
        K[:, place] = (np.swapaxes(L, 1, 2)[:, None] @ rows).reshape(C, -1, m)
    precision, right = K[:, :-1, :-1], K[:, :-1, -1]
    at = np.arange(p, m - 1)
    precision[:, at, at] += 1.0
    if p:
        tau, mean = _normal_priors(sums, state)
        precision[:, :p, :p] += (sums.U.T * tau[:, None]) @ sums.U
        right[:, :p] += (tau * (mean - sums.u0)) @ sums.U
    x = _draw_normal(precision, right, rng)
    state.gamma = x[:, :p]
    for k, place in enumerate(sums.places, 1):
        z = x[:, place].reshape(C, *sums.factors[k].shape)
        state.b[k] = z @ np.swapaxes(state.L[k], 1, 2)


def _draw_first(sums: GibbsSums, state: State, half: np.ndarray, rng: np.random.Generator) -> None:
    """Draw the effects of the first factor, given everything else."""
    which, (C, J, q) = sums.factors[0].which, state.b[0].shape
    score = (_contrast(sums, state) @ sums.ZM.reshape(J * q, -1).T).reshape(C, J, q, 1)
    right = np.swapaxes(half, 2, 3)[:, which] @ score / state.sigma[:, None, None, None] ** 2
    state.b[0] = (half[:, which] @ (right + rng.standard_normal(right.shape)))[..., 0]


def _draw_normal(precision: np.ndarray, right: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw from N(precision^-1 right, precision^-1), one for each chain."""
    half = np.linalg.cholesky(precision)
    noise = np.linalg.solve(half, right[..., None])[..., 0] + rng.standard_normal(right.shape)
    return np.asarray(np.linalg.solve(np.swapaxes(half, 1, 2), noise[..., None])[..., 0])


def _normal_priors(sums: GibbsSums, state: State) -> tuple[np.ndarray, np.ndarray]:
    """Return precisions, shape (C, p), and means of the coefficients' normal priors."""
    scale, mean = np.ones(sums.p), np.zeros(sums.p)
    for k, prior in enumerate(sums.priors):
        v = prior.parameters
        scale[k] = np.inf if prior.name == "flat" else v.get("sigma", v.get("beta"))
        mean[k] = v.get("mu", v.get("alpha", 0.0))
    return 1.0 / (scale**2 * state.omega), mean


def draw_mixture(sums: GibbsSums, state: State, rng: np.random.Generator) -> None:
    """Draw the scales of Student priors: a Student variable is a normal one of random variance."""
    for k, prior in enumerate(sums.priors):
        if prior.name not in ("student-t", "cauchy"):
            continue
        v = prior.parameters
        nu, scale = v.get("nu", 1.0), v.get("sigma", v.get("beta", 1.0))
        u = sums.u0[k] + state.gamma @ sums.U[k]
        square = ((u - v.get("mu", v.get("alpha", 0.0))) / scale) ** 2
        state.omega[:, k] = (nu + square) / rng.chisquare(nu + 1, len(u))


def _contrast(sums: GibbsSums, state: State) -> np.ndarray:
    """Return v with M v the residual, the effects of the first factor left in, shape (C, m)."""
    C = len(state.sigma)
    rest = [-b.reshape(C, -1) for b in state.b[1:]]
    return np.concatenate([-state.gamma, *rest, np.ones((C, 1))], axis=1)


def _sds(part: Part, L: np.ndarray) -> np.ndarray:
    """Return the sds of correlated effects on the user's scale, shape (C, s)."""
    return np.sqrt(((part.T @ L) ** 2).sum(axis=2))


def _log_density(part: Part, L: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the log prior density of the covariance D of correlated effects, and log|D|.

    The prior of sds and correlations R, that of the sds times |R|^(eta - 1), over the Jacobian:
    the product of 2 sd_i^s.
    """
    sd = _sds(part, L)
    density = sum((log_prior(pr, sd[:, a]) for a, pr in enumerate(part.priors)), np.zeros(len(L)))
    diagonal = np.abs(np.diagonal(L, axis1=1, axis2=2))
    log_det = 2 * (np.log(diagonal).sum(axis=1) + part.log_det)
    logs = np.log(sd).sum(axis=1)
    return density + (part.eta - 1) * (log_det - 2 * logs) - part.size * logs, log_det


def draw_covariance(state: State, k: int, part: Part, rng: np.random.Generator) -> None:
    """Draw the covariance of correlated effects given the effects.

    The conjugate distribution for a flat prior of sds and correlations is the proposal, inverse
    gamma or inverse Wishart with J - 1 degrees of freedom; it is accepted by what the priors say.
    """
    b, L = state.b[k][:, :, part.at], state.L[k][:, part.at, part.at]
    C, J, s = b.shape
    nu = max(J - 1, s)
    A = np.zeros((C, s, s))
    for i in range(s):
        A[:, i, i] = np.sqrt(rng.chisquare(nu - i, C))
        A[:, i, :i] = rng.standard_normal((C, i))
    new = _lower(_lower(np.swapaxes(b, 1, 2)) @ np.swapaxes(np.linalg.inv(A), 1, 2))

    def weight(half: np.ndarray) -> np.ndarray:
        density, log_det = _log_density(part, half)
        return density + 0.5 * (nu + s + 1 - J) * log_det

    yes = state.accept(_log_ratio(weight, new, L), rng)
    state.L[k][:, part.at, part.at] = np.where(yes[:, None, None], new, L)


def _log_ratio(
    weight: Callable[[np.ndarray], np.ndarray], new: np.ndarray, old: np.ndarray
) -> np.ndarray:
    """Return the difference of log weights, evaluated in one go."""
    both = weight(np.concatenate([new, old]))
    return both[: len(new)] - both[len(new) :]


def _first_products(
    sums: GibbsSums, state: State, part: Part
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return Z'e / sigma^2, (C, J, s), and what takes changes of the effects to changes of it."""
    factor, b = sums.factors[0], state.b[0]
    C, J, q = b.shape
    s2 = state.sigma[:, None, None] ** 2
    score = (_contrast(sums, state) @ sums.ZM.reshape(J * q, -1).T).reshape(C, J, q)
    score -= (factor.ZZ[factor.which] @ b[..., None])[..., 0]
    ZZ = factor.ZZ[factor.which][:, part.at, part.at]
    return score[:, :, part.at] / s2, lambda X: ZZ @ X / s2[..., None]


def _rest_products(
    sums: GibbsSums, state: State, k: int, part: Part, K: np.ndarray
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return the same for another factor, with the first integrated out: K is M'V^-1 M."""
    C, J, q = state.b[k].shape
    rows = K[:, sums.places[k - 1]]
    score = (rows @ _contrast(sums, state)[..., None]).reshape(C, J, q)[:, :, part.at]
    own = rows[:, :, sums.places[k - 1]].reshape(C, J, q, J, q)[:, :, part.at, :, part.at]
    own = own.reshape(C, J * part.size, J * part.size)
    return score, lambda X: (own @ X.reshape(C, J * part.size, -1)).reshape(X.shape)


def interweave(
    state: State,
    k: int,
    part: Part,
    score: np.ndarray,
    products: Callable[[np.ndarray], np.ndarray],
    rng: np.random.Generator,
) -> None:
    """Draw the covariance again, and the effects with it: given the effects in units of it.

    First the sds, given effects over sds; then each row of the Cholesky factor L, given
    z = L^-1 b. What is held being independent of what is drawn under the prior, the data alone
    speak: the outcome is a linear regression, whose normal distribution is the proposal, accepted
    by what the priors say. Together with `draw_covariance` this mixes well both where the data say
    much about each group and where they say little (Yu & Meng 2011).

    Parameters
    ----------
    state, k, part
        Where the chains are; which effects.
    score : ndarray, shape (C, J, s)
        Z'V^-1 e.
    products : callable
        Turns X, shape (C, J, s, f), into Z'V^-1 Z X.
    rng : numpy.random.Generator
        Source of random numbers.
    """
    s, C = part.size, len(score)
    order = np.arange(s, 0, -1.0)
    for row in range(s):
        b, L = state.b[k][:, :, part.at], state.L[k][:, part.at, part.at]
        if row == 0:
            X = part.T_inverse * (b @ part.T.T)[:, :, None, :]
        else:
            X = np.zeros((*b.shape, row + 1))
            X[:, :, row] = (b @ np.swapaxes(np.linalg.inv(L), 1, 2))[:, :, : row + 1]
        ZX = products(X)
        f = X.shape[3]
        flat = np.swapaxes(X.reshape(C, -1, f), 1, 2)
        right = (flat @ score.reshape(C, -1, 1))[..., 0]
        change = _draw_normal(flat @ ZX.reshape(C, -1, f), right, rng)
        if row == 0:
            half = part.T_inverse @ ((1.0 + change)[:, :, None] * (part.T @ L))
        else:
            half = np.array(L)
            half[:, row, : row + 1] += change
        new = _lower(half)

        def weight(half: np.ndarray, scale: bool = row == 0) -> np.ndarray:
            density = _log_density(part, half)[0]
            if scale:
                return density + s * np.log(_sds(part, half)).sum(axis=1)
            return density + np.log(np.abs(np.diagonal(half, axis1=1, axis2=2))) @ order

        yes = state.accept(_log_ratio(weight, new, L), rng)
        change = np.where(yes[:, None], change, 0.0)[:, None, :, None]
        state.L[k][:, part.at, part.at] = np.where(yes[:, None, None], new, L)
        state.b[k][:, :, part.at] = b + (X @ change)[..., 0]
        score = score - (ZX @ change)[..., 0]


def _lower(half: np.ndarray) -> np.ndarray:
    """Return the lower triangular factors, diagonal not negative, of half half'."""
    if half.shape[1] == 1:
        return np.sqrt((half**2).sum(axis=2, keepdims=True))
    R = np.linalg.qr(np.swapaxes(half, 1, 2), mode="r")
    sign = np.where(np.diagonal(R, axis1=1, axis2=2) < 0, -1.0, 1.0)
    return np.swapaxes(sign[:, :, None] * R, 1, 2)


def draw_sigma(sums: GibbsSums, state: State, rng: np.random.Generator) -> None:
    """Draw the residual sd given the residuals: proposed under a flat prior, then accepted."""
    v, b, first = _contrast(sums, state), state.b[0], sums.factors[0]
    C, J, q = b.shape
    score = (v @ sums.ZM.reshape(J * q, -1).T).reshape(C, J, q)
    own = (first.ZZ[first.which] @ b[..., None])[..., 0]
    square = ((v @ sums.MM) * v).sum(axis=1) + (b * (own - 2 * score)).sum(axis=(1, 2))
    new = np.sqrt(square / rng.chisquare(sums.n - 1, C))
    prior = sums.sigma_prior
    yes = state.accept(_log_ratio(lambda x: log_prior(prior, x), new, state.sigma), rng)
    state.sigma = np.where(yes, new, state.sigma)
