"""Every prior as a distribution: draws, densities and quantiles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import special

from hmlm.errors import PriorError
from hmlm.priors import Prior

# Distributions of the absolute value of one about zero.
HALF = ("half-normal", "half-student-t", "half-cauchy")


def check_proper(prior: Prior, name: str) -> None:
    """Refuse a prior that is no distribution, of which there are no draws.

    Raises
    ------
    PriorError
        If the prior is flat or half-flat.
    """
    if prior.name in ("flat", "half-flat"):
        proper = "half-normal" if prior.name == "half-flat" else "normal"
        raise PriorError(
            f"the prior of '{name}' is {prior.name}: it has no total probability, so nothing can "
            f"be drawn from it. Give '{name}' a wide {proper} prior instead, such as "
            f"Prior('{proper}', sigma=100)."
        )


def prior_distribution(prior: Prior) -> Any:
    """Return a prior as a frozen distribution of SciPy; a half prior as the whole one.

    Half-normal, half-student-t and half-cauchy priors come as the distributions about zero whose
    absolute values they are.

    Raises
    ------
    PriorError
        If the prior is flat, half-flat or lkj.
    """
    from scipy import stats

    v = prior.parameters
    name = prior.name
    if name in ("normal", "half-normal"):
        return stats.norm(v.get("mu", 0.0), v["sigma"])
    if name in ("student-t", "half-student-t"):
        return stats.t(v["nu"], v.get("mu", 0.0), v["sigma"])
    if name in ("cauchy", "half-cauchy"):
        return stats.cauchy(v.get("alpha", 0.0), v["beta"])
    if name == "uniform":
        return stats.uniform(v["lower"], v["upper"] - v["lower"])
    if name == "exponential":
        return stats.expon(scale=1.0 / v["lam"])
    if name == "gamma":
        return stats.gamma(v["alpha"], scale=1.0 / v["beta"])
    if name == "inverse-gamma":
        return stats.invgamma(v["alpha"], scale=v["beta"])
    if name == "lognormal":
        return stats.lognorm(v["sigma"], scale=math.exp(v["mu"]))
    if name == "beta":
        return stats.beta(v["alpha"], v["beta"])
    raise PriorError(f"a {name} prior is no distribution of one number.")


def draw_prior(
    prior: Prior, rng: np.random.Generator, shape: tuple[int, ...], name: str = "parameter"
) -> np.ndarray:
    """Draw from a prior of one number.

    Parameters
    ----------
    prior : Prior
        The prior.
    rng : numpy.random.Generator
        Source of the random numbers.
    shape : tuple of int
        Shape of the draws.
    name : str
        The parameter, for the message of an error.

    Raises
    ------
    PriorError
        If the prior is flat or half-flat.

    Examples
    --------
    >>> import numpy as np
    >>> from hmlm.priors import Prior
    >>> draws = draw_prior(Prior("half-normal", sigma=2), np.random.default_rng(1), (1000,))
    >>> draws.shape, bool((draws > 0).all())
    ((1000,), True)
    """
    check_proper(prior, name)
    values = np.asarray(prior_distribution(prior).rvs(size=shape, random_state=rng), dtype=float)
    return np.abs(values) if prior.name in HALF else values


def log_prior_density(prior: Prior, x: Any) -> np.ndarray:
    """Return the log density of a prior of one number; zero everywhere where it is flat.

    Examples
    --------
    >>> from hmlm.priors import Prior
    >>> log_prior_density(Prior("half-normal", sigma=1), [0.0, 1.0]).round(4).tolist()
    [-0.2258, -0.7258]
    """
    x = np.asarray(x, dtype=float)
    if prior.name == "flat":
        return np.zeros_like(x)
    if prior.name == "half-flat":
        return np.where(x >= 0, 0.0, -np.inf)
    found = np.asarray(prior_distribution(prior).logpdf(x))
    return np.where(x >= 0, found + math.log(2.0), -np.inf) if prior.name in HALF else found


def prior_quantile(prior: Prior, q: Any) -> np.ndarray:
    """Return quantiles of a prior of one number.

    Raises
    ------
    PriorError
        If the prior is flat or half-flat.

    Examples
    --------
    >>> from hmlm.priors import Prior
    >>> prior_quantile(Prior("half-cauchy", beta=1), [0.5]).round(4).tolist()
    [1.0]
    """
    check_proper(prior, "parameter")
    q = np.asarray(q, dtype=float)
    return np.asarray(prior_distribution(prior).ppf(0.5 + q / 2 if prior.name in HALF else q))


def draw_correlations(
    eta: float, q: int, rng: np.random.Generator, shape: tuple[int, ...]
) -> np.ndarray:
    """Draw Cholesky factors of correlation matrices from LKJ(eta).

    Parameters
    ----------
    eta : float
        Shape; one is uniform over correlation matrices.
    q : int
        Size of the matrices.
    rng : numpy.random.Generator
        Source of the random numbers.
    shape : tuple of int
        How many to draw.

    Returns
    -------
    ndarray, shape (*shape, q, q)
        Lower triangular factors L; the correlation matrices are LL'.

    Notes
    -----
    By the onion method: row k of L is a random direction whose squared length below the diagonal
    is beta(k / 2, eta + (q - 1 - k) / 2) [1]_.

    References
    ----------
    .. [1] Lewandowski, Kurowicka and Joe (2009), Generating random correlation matrices based on
       vines and extended onion method, Journal of Multivariate Analysis 100, 1989-2001, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> L = draw_correlations(2.0, 3, np.random.default_rng(1), (4000,))
    >>> R = L @ L.swapaxes(-1, -2)
    >>> bool(np.allclose(np.diagonal(R, axis1=1, axis2=2), 1)), round(float(R[:, 2, 0].std()), 2)
    (True, 0.41)
    """
    L = np.zeros((*shape, q, q))
    L[..., 0, 0] = 1.0
    for k in range(1, q):
        square = rng.beta(k / 2, eta + (q - 1 - k) / 2, size=shape)
        direction = rng.standard_normal((*shape, k))
        direction /= np.sqrt((direction**2).sum(axis=-1, keepdims=True))
        L[..., k, :k] = np.sqrt(square)[..., None] * direction
        L[..., k, k] = np.sqrt(1.0 - square)
    return L


def log_lkj_density(eta: float, R: np.ndarray) -> np.ndarray:
    """Return the log density of LKJ(eta) at correlation matrices, by their upper triangles.

    Parameters
    ----------
    eta : float
        Shape.
    R : ndarray, shape (..., q, q)
        Correlation matrices.

    References
    ----------
    Lewandowski, Kurowicka and Joe (2009), as in `draw_correlations`, equation (16).

    Examples
    --------
    >>> import numpy as np
    >>> R = np.array([[1.0, 0.3], [0.3, 1.0]])
    >>> round(float(np.exp(log_lkj_density(1.0, R))), 4)
    0.5
    """
    q = R.shape[-1]
    constant = 0.0
    for k in range(1, q):
        rest = q - k
        a = eta + (rest - 1) / 2
        constant += rest * ((2 * eta - 2 + rest) * math.log(2.0) + float(special.betaln(a, a)))
    return np.asarray((eta - 1.0) * np.linalg.slogdet(R)[1] - constant)
