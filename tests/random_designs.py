"""Random designs for linear mixed models, and their dense restricted likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class RandomDesign:
    """A random linear mixed model with its table.

    Attributes
    ----------
    formula : str
        As lme4 writes it.
    blocks : tuple of (str, tuple of str, bool)
        For each term the column of its groups, its columns and whether they are correlated.
    fixed : tuple of str
        Columns of the population.
    table : DataFrame
        ``y``, ``x``, ``w``, ``g``, ``c`` (cells of g) and ``h``.
    """

    formula: str
    blocks: tuple[tuple[str, tuple[str, ...], bool], ...]
    fixed: tuple[str, ...]
    table: pd.DataFrame


STRUCTURES = (
    ("(1 | g)", (("g", ("1",), True),)),
    ("(x | g)", (("g", ("1", "x"), True),)),
    ("(x || g)", (("g", ("1", "x"), False),)),
    ("(0 + x | g)", (("g", ("x",), True),)),
    ("(1 | g) + (1 | c)", (("g", ("1",), True), ("c", ("1",), True))),
    ("(1 | g) + (1 | h)", (("g", ("1",), True), ("h", ("1",), True))),
    ("(x | g) + (1 | h)", (("g", ("1", "x"), True), ("h", ("1",), True))),
)


def make_random_design(seed: int) -> RandomDesign:
    """Draw a design: structure, rows, groups (unbalanced), sds and correlation."""
    rng = np.random.default_rng([seed, 77])
    text, blocks = STRUCTURES[seed % len(STRUCTURES)]
    fixed = (("1", "x"), ("1", "x", "w"))[int(rng.integers(2))]
    J, H = int(rng.integers(6, 25)), int(rng.integers(4, 9))
    sizes = 2 + rng.poisson(rng.uniform(1, 8), J)
    g = np.repeat(np.arange(J), sizes)
    n = len(g)
    c = 2 * g + np.concatenate([np.arange(s) % 2 for s in sizes])
    h = rng.integers(0, H, n)
    x = rng.normal(rng.uniform(-1, 1), 1, n)
    w = rng.uniform(size=J)[g]
    cor = rng.uniform(-0.9, 0.9)
    scale = rng.choice([0.0, 0.3, 1.0, 2.0], size=4, p=[0.1, 0.3, 0.4, 0.2])
    b = rng.multivariate_normal([0, 0], [[1, cor], [cor, 1]], J) * scale[:2]
    y = 1 + 0.5 * x + w + b[g, 0] + b[g, 1] * x + rng.normal(size=n) * rng.choice([0.3, 1.0])
    if "c" in text:
        y += (scale[2] * rng.normal(size=2 * J))[c]
    if "h" in text:
        y += (scale[3] * rng.normal(size=H))[h]
    table = pd.DataFrame(
        {
            "y": y,
            "x": x,
            "w": w,
            "g": [f"g{k:02d}" for k in g],
            "c": [f"c{k:02d}" for k in c],
            "h": [f"h{k:02d}" for k in h],
        }
    )
    formula = f"y ~ {' + '.join(t for t in fixed if t != '1')} + {text}"
    return RandomDesign(formula=formula, blocks=blocks, fixed=fixed, table=table)


class DenseREML:
    """The restricted log-likelihood of a design from N x N matrices, and its maximum by scipy."""

    def __init__(self, design: RandomDesign) -> None:
        self.y = design.table["y"].to_numpy()
        n = len(self.y)
        column = {"1": np.ones(n), "x": design.table["x"].to_numpy(), "w": design.table["w"]}
        self.X = np.column_stack([column[t] for t in design.fixed])
        self.terms = []
        for group, names, correlated in design.blocks:
            labels = design.table[group].to_numpy()
            same = (labels[:, None] == labels[None, :]).astype(float)
            self.terms.append((same, np.column_stack([column[t] for t in names]), correlated))

    def log_likelihood(self, covariances: list[np.ndarray], sigma: float) -> float:
        """Return it at the covariance matrix of each term's effects and the residual sd."""
        V = sigma**2 * np.eye(len(self.y))
        for (same, Z, _), D in zip(self.terms, covariances, strict=True):
            V += same * (Z @ D @ Z.T)
        return self._restricted(V)[0]

    def coefficients(self, covariances: list[np.ndarray], sigma: float) -> np.ndarray:
        """Return the generalised least squares estimates at the same."""
        V = sigma**2 * np.eye(len(self.y))
        for (same, Z, _), D in zip(self.terms, covariances, strict=True):
            V += same * (Z @ D @ Z.T)
        return self._restricted(V)[1]

    def _restricted(self, V: np.ndarray) -> tuple[float, np.ndarray]:
        L = np.linalg.cholesky(V)
        W = np.linalg.solve(L, np.column_stack([self.X, self.y]))
        X, y = W[:, :-1], W[:, -1]
        information = X.T @ X
        beta = np.linalg.solve(information, X.T @ y)
        r = y - X @ beta
        free = len(self.y) - X.shape[1]
        log_det = 2 * np.log(np.diagonal(L)).sum() + np.linalg.slogdet(information)[1]
        return -0.5 * (free * np.log(2 * np.pi) + log_det + r @ r), beta

    def unpack(self, v: np.ndarray) -> tuple[list[np.ndarray], float]:
        """Return covariance matrices and sigma from Cholesky factors over sigma and log sigma."""
        sigma, at, found = np.exp(v[-1]), 0, []
        for _, Z, correlated in self.terms:
            q = Z.shape[1]
            L = np.zeros((q, q))
            rows, columns = np.tril_indices(q) if correlated else np.diag_indices(q)
            L[rows, columns] = v[at : at + len(rows)]
            at += len(rows)
            found.append(sigma**2 * L @ L.T)
        return found, float(sigma)

    def size(self) -> int:
        """Return the number of coordinates of `unpack`."""
        sizes = [Z.shape[1] for _, Z, _ in self.terms]
        full = [t[2] for t in self.terms]
        return 1 + sum(q * (q + 1) // 2 if f else q for q, f in zip(sizes, full, strict=True))

    def maximise(self, starts: int = 2) -> tuple[list[np.ndarray], float]:
        """Return the covariances and sigma of the highest restricted likelihood found."""
        best = None
        for k in range(starts):
            start = np.full(self.size(), (0.5, 1.5)[k])
            start[-1] = np.log(self.y.std() / 2)
            found = optimize.minimize(
                lambda v: -self.log_likelihood(*self.unpack(v)), start, method="BFGS"
            )
            found = optimize.minimize(
                lambda v: -self.log_likelihood(*self.unpack(v)),
                found.x,
                method="Nelder-Mead",
                options={"xatol": 1e-7, "fatol": 1e-11, "maxiter": 2000, "maxfev": 2000},
            )
            if best is None or found.fun < best.fun:
                best = found
        assert best is not None
        return self.unpack(best.x)
