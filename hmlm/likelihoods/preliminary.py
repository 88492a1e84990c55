"""A quick Gaussian picture of a posterior, which the sampler's coordinates are made from.

Penalised scoring steps for coefficients and group effects, an EM step for the covariances of the
effects, and a step for the family parameters take turns. Nothing of it enters the posterior: it
only says where to start, and how wide things are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import minimize

from hmlm.default_priors import PredictorPriors, ResolvedPriors
from hmlm.design import Design
from hmlm.families import PARAMETERS
from hmlm.likelihoods.crossproducts import group_products
from hmlm.likelihoods.family_kernel import CODES
from hmlm.likelihoods.prior_kernel import encode_prior, prior_logp
from hmlm.likelihoods.rows import Rows
from hmlm.likelihoods.scales import Scale
from hmlm.likelihoods.special_kernel import LINKS
from hmlm.links import to_link
from hmlm.prior_scales import category_counts, outcome_spread, zero_count
from hmlm.priors import Prior

ROUNDS = 40
LARGEST_STEP = 2.0
STEP = 1e-4


@dataclass(eq=False, kw_only=True, slots=True)
class Preliminary:
    """Estimates, changed in place while they are made.

    Attributes
    ----------
    beta : list of ndarray
        Coefficients of every predictor.
    effects : list of ndarray, shape (J, q)
        Effects of every block, in the order of `Rows.blocks`.
    D : list of ndarray, shape (q, q)
        Their covariances.
    means : list of ndarray, shape (q,)
        Their means: zero but under no pooling.
    scalars : dict of str to float
        Family parameters that are one number.
    cuts : ndarray
        Cutpoints of an ordinal outcome.
    beta_cov : list of ndarray
        Covariance of the coefficients, the group effects integrated out.
    slope : ndarray, shape (R, N)
        Derivative of the log likelihood by every linear predictor.
    weight : ndarray, shape (R, N)
        Less its second derivative, kept positive.
    """

    beta: list[np.ndarray]
    effects: list[np.ndarray]
    D: list[np.ndarray]
    means: list[np.ndarray]
    scalars: dict[str, float]
    cuts: np.ndarray
    beta_cov: list[np.ndarray] = field(default_factory=list)
    slope: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    weight: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))


class _Fitter:
    """The moves of the search."""

    def __init__(self, design: Design, rows: Rows, priors: ResolvedPriors) -> None:
        self.design, self.rows, self.priors = design, rows, priors
        family = design.spec.family
        self.code, self.link = CODES[family.name], LINKS[family.link]
        self.names = family.parameters
        self.X = [p.of_rows(p.X) for p in rows.predictors]
        self.prior = [_normal(priors.predictor(p.predictor.name)) for p in rows.predictors]
        self.at = _start(design, rows, priors)

    def eta(self) -> np.ndarray:
        """Return every linear predictor in every row, shape (R, N)."""
        out = np.empty((len(self.X), len(self.rows.y)))
        for r, p in enumerate(self.rows.predictors):
            out[r] = self.X[r] @ self.at.beta[r] + p.of_rows(p.offset)
        for block, b in zip(self.rows.blocks, self.at.effects, strict=True):
            out[block.predictor] += np.einsum("nk,nk->n", block.Z, b[block.index])
        return out

    def likelihood(
        self,
        eta: np.ndarray,
        scalars: dict[str, float] | None = None,
        cuts: np.ndarray | None = None,
    ) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Return log likelihood, and its derivatives by eta, family parameters and cutpoints."""
        from hmlm.likelihoods.glmm_density import row_likelihood

        rows, N = self.rows, len(self.rows.y)
        scalars = self.at.scalars if scalars is None else scalars
        cuts = self.at.cuts if cuts is None else cuts
        others = {p.predictor.name: r for r, p in enumerate(rows.predictors)}
        values = [np.ones(N), np.ones(N)]
        for k, name in enumerate(self.names):
            if name in others:
                e = np.clip(eta[others[name]], -500.0, 500.0)
                values[k] = np.exp(e) if PARAMETERS[name].link == "log" else 1 / (1 + np.exp(-e))
            elif name in scalars:
                values[k] = np.full(N, scalars[name])
        d, d1, d2, d_cuts = np.zeros_like(eta), np.zeros(N), np.zeros(N), np.zeros(len(cuts))
        total = row_likelihood(
            self.code, self.link, rows.y, rows.n, rows.w, rows.m,
            eta, *values, cuts, d, d1, d2, d_cuts,
        )  # fmt: skip
        for k, (name, slope) in enumerate(zip(self.names, (d1, d2), strict=False)):
            if name in others:
                v = values[k]
                d[others[name]] = slope * (v if PARAMETERS[name].link == "log" else v * (1 - v))
        sums = np.array([d1.sum(), d2.sum()])
        return float(total), d, sums, d_cuts

    def refresh(self) -> None:
        """Evaluate derivatives and weights where the search stands."""
        eta = self.eta()
        self.at.slope = np.nan_to_num(self.likelihood(eta)[1])
        weight = np.empty_like(eta)
        for r in range(len(eta)):
            shifted = []
            for side in (STEP, -STEP):
                moved = eta.copy()
                moved[r] += side
                shifted.append(self.likelihood(moved)[1][r])
            w = (shifted[1] - shifted[0]) / (2 * STEP)
            w = np.where(np.isfinite(w), w, 0.0)
            usual = float(np.abs(w).mean()) or 1.0
            weight[r] = np.maximum(w, 1e-3 * usual)
        self.at.weight = weight

    def population_step(self, r: int) -> None:
        """Move the coefficients of one predictor."""
        mean, precision = self.prior[r]
        X, W = self.X[r], self.at.weight[r]
        A = X.T @ (X * W[:, None]) + np.diag(precision)
        right = X.T @ self.at.slope[r] - precision * (self.at.beta[r] - mean)
        step = np.linalg.solve(A, right)
        self.at.beta[r] = self.at.beta[r] + step * _damp(X @ step)

    def block_step(self, k: int) -> None:
        """Move the effects of one block together with the coefficients of its predictor."""
        block, at = self.rows.blocks[k], self.at
        r = block.predictor
        mean, precision = self.prior[r]
        X, W = self.X[r], at.weight[r]
        D_inverse = np.linalg.inv(at.D[k])
        root = np.sqrt(W)[:, None]
        M = np.column_stack([X * root, at.slope[r][:, None] / root])
        J, p = at.effects[k].shape[0], X.shape[1]
        ZZ, ZM = group_products(block.index, block.Z * root, M, J)
        right_b = ZM[:, :, -1] - (at.effects[k] - at.means[k]) @ D_inverse
        C = np.linalg.inv(ZZ + D_inverse)
        gain = C @ ZM[:, :, :p]
        own = np.einsum("jab,jb->ja", C, right_b)
        if p:
            A = M[:, :p].T @ M[:, :p] - np.einsum("jap,jar->pr", ZM[:, :, :p], gain)
            A += np.diag(precision)
            right = X.T @ at.slope[r] - precision * (at.beta[r] - mean)
            right -= np.einsum("jap,ja->p", ZM[:, :, :p], own)
            step = np.linalg.solve(A, right)
        else:
            step = np.zeros(0)
        change = own - gain @ step
        moved = X @ step + np.einsum("nk,nk->n", block.Z, change[block.index])
        scale = _damp(moved)
        at.beta[r] = at.beta[r] + scale * step
        at.effects[k] = at.effects[k] + scale * change
        if self.design.spec.pooling == "partial":
            at.D[k] = self._em_step(k, C)

    def _em_step(self, k: int, C: np.ndarray) -> np.ndarray:
        """Return the expected covariance of a block's effects, kept off zero."""
        block, at = self.rows.blocks[k], self.at
        b = at.effects[k]
        J, q = b.shape
        D = (b.T @ b + C.sum(axis=0)) / J
        mask = np.zeros((q, q))
        for part in block.block.slices:
            mask[part, part] = 1.0
        D = D * mask
        sd = self._prior_sds(k)
        low, high = 0.03 * sd, 20.0 * sd
        size = np.sqrt(np.diagonal(D))
        R = D / np.outer(size, size)
        R = 0.98 * R + 0.02 * np.eye(q)
        size = np.clip(size, low, high)
        return np.asarray(R * np.outer(size, size))

    def _prior_sds(self, k: int) -> np.ndarray:
        block = self.rows.blocks[k]
        name = self.rows.predictors[block.predictor].predictor.name
        return _typical(self.priors.predictor(name).sd[block.block.group])

    def parameter_step(self) -> None:
        """Move family parameters and cutpoints to their best, the linear predictors held."""
        names, K = list(self.at.scalars), len(self.at.cuts)
        if not names and not K:
            return
        scales = [Scale(prior=self.priors.parameters[n]) for n in names]
        codes = [encode_prior(s.prior) for s in scales]
        eta = self.eta()
        first = [s.coordinate(self.at.scalars[n]) for s, n in zip(scales, names, strict=True)]
        first += cut_coordinates(self.at.cuts).tolist()

        def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
            values = [float(s.value(v)) for s, v in zip(scales, x, strict=False)]
            cuts = cuts_from(x[len(names) :])
            scalars = dict(zip(names, values, strict=True))
            total, _, sums, d_cuts = self.likelihood(eta, scalars, cuts)
            gradient = np.zeros_like(x)
            for i, (name, code) in enumerate(zip(names, codes, strict=True)):
                assert code is not None
                value, slope = prior_logp.py_func(*code, values[i])
                total += value
                step = 1e-6
                dv = (float(scales[i].value(x[i] + step)) - values[i]) / step
                gradient[i] = (sums[self.names.index(name)] + slope) * dv
            if K:
                pulled = np.cumsum(d_cuts[::-1])[::-1]
                gradient[len(names) :] = pulled * np.append(1.0, np.exp(x[len(names) + 1 :]))
            if not np.isfinite(total) or not np.isfinite(gradient).all():
                return 1e100, np.zeros_like(x)
            return -total, -gradient

        x0 = np.array(first)
        bounds = [(v - 1.5, v + 1.5) for v in x0]
        found = minimize(
            objective, x0, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 8}
        )
        if np.isfinite(found.fun) and found.fun < 1e99:
            for i, name in enumerate(names):
                self.at.scalars[name] = float(scales[i].value(found.x[i]))
            self.at.cuts = cuts_from(found.x[len(names) :])

    def covariances(self) -> list[np.ndarray]:
        """Return the covariance of every predictor's coefficients, effects integrated out.

        What each block adds to it is taken by itself: exact for one, and nearly so for crossed
        factors in balanced data.
        """
        found = []
        for r in range(len(self.X)):
            X, W = self.X[r], self.at.weight[r]
            base = X.T @ (X * W[:, None]) + np.diag(np.maximum(self.prior[r][1], 1e-12))
            total = alone = np.linalg.inv(base)
            for k, block in enumerate(self.rows.blocks):
                if block.predictor != r:
                    continue
                root = np.sqrt(W)[:, None]
                J = len(self.at.effects[k])
                ZZ, ZX = group_products(block.index, block.Z * root, X * root, J)
                C = np.linalg.inv(ZZ + np.linalg.inv(self.at.D[k]))
                lost = np.einsum("jap,jab,jbr->pr", ZX, C, ZX, optimize=True)
                total = total + np.linalg.inv(base - lost) - alone
            found.append(0.5 * (total + total.T))
        return found


def preliminary(design: Design, rows: Rows, priors: ResolvedPriors) -> Preliminary:
    """Search for a Gaussian picture of the posterior.

    Parameters
    ----------
    design : Design
        The model.
    rows : Rows
        Its rows.
    priors : ResolvedPriors
        Its priors.
    """
    fitter = _Fitter(design, rows, priors)
    at = fitter.at
    for _ in range(ROUNDS):
        before = np.concatenate([*at.beta, *(np.sqrt(np.diagonal(D)) for D in at.D)])
        fitter.refresh()
        with_blocks = {b.predictor for b in rows.blocks}
        for k in range(len(rows.blocks)):
            fitter.block_step(k)
            if k < len(rows.blocks) - 1:
                fitter.refresh()
        for r in range(len(rows.predictors)):
            if r not in with_blocks and len(at.beta[r]):
                fitter.population_step(r)
        fitter.parameter_step()
        after = np.concatenate([*at.beta, *(np.sqrt(np.diagonal(D)) for D in at.D)])
        size = np.maximum(np.abs(after), 0.05)
        if not len(after) or np.max(np.abs(after - before) / size) < 0.01:
            break
    fitter.refresh()
    at.beta_cov = fitter.covariances()
    return at


def _damp(step: np.ndarray) -> float:
    """Return what a step is to be multiplied with, so that no row moves too far."""
    largest = float(np.abs(step).max(initial=0.0))
    return 1.0 if largest <= LARGEST_STEP else LARGEST_STEP / largest


def _typical(priors: tuple[Prior, ...]) -> np.ndarray:
    """Return a typical value of every prior of an sd."""
    out = []
    for prior in priors:
        v = prior.parameters
        out.append(
            {
                "exponential": lambda v: 1.0 / v["lam"],
                "gamma": lambda v: v["alpha"] / v["beta"],
                "inverse-gamma": lambda v: v["beta"] / (v["alpha"] + 1.0),
                "lognormal": lambda v: float(np.exp(v["mu"])),
                "half-flat": lambda v: 1.0,
                "half-cauchy": lambda v: v["beta"],
                "uniform": lambda v: 0.5 * (v["lower"] + v["upper"]),
                "beta": lambda v: 0.5,
            }.get(prior.name, lambda v: v["sigma"])(v)
        )
    return np.array(out)


def _normal(priors: PredictorPriors) -> tuple[np.ndarray, np.ndarray]:
    """Return a mean and precision for each coefficient that is about that of its prior."""
    mean, precision = [], []
    for prior in priors.beta:
        v = prior.parameters
        mean.append(v.get("mu", v.get("alpha", 0.0)) if prior.name != "gamma" else 1.0)
        scale = v.get("sigma", v.get("beta", 0.0))
        precision.append(1.0 / scale**2 if scale else 1e-10)
    if priors.constant.any():
        # The prior of the intercept is on the outcome at average predictors.
        return np.zeros(len(mean)), np.where(priors.constant != 0, 1e-8, precision)
    return np.array(mean), np.array(precision)


def cut_coordinates(cuts: np.ndarray) -> np.ndarray:
    """Return the first cutpoint and the logarithms of the gaps."""
    return np.concatenate([cuts[:1], np.log(np.diff(cuts))])


def cuts_from(x: np.ndarray) -> np.ndarray:
    """Return cutpoints from their coordinates, the last axis."""
    if not x.shape[-1]:
        return x
    return np.cumsum(np.concatenate([x[..., :1], np.exp(x[..., 1:])], axis=-1), axis=-1)


def _start(design: Design, rows: Rows, priors: ResolvedPriors) -> Preliminary:
    """Return where the search starts: the outcome's average, and no group effects."""
    beta = []
    for p in rows.predictors:
        own = priors.predictor(p.predictor.name)
        first = np.zeros(len(own.beta))
        for k, prior in enumerate(own.beta):
            if own.constant[k]:
                first[k] = prior.parameters.get("mu", 0.0)
        beta.append(first)
    effects, D, means = [], [], []
    for block in rows.blocks:
        own = priors.predictor(rows.predictors[block.predictor].predictor.name)
        group, q = block.block.group, len(block.block.columns)
        mean = np.zeros(q)
        if design.spec.pooling == "partial":
            sd = 0.5 * np.minimum(_typical(own.sd[group]), 1e6)
        else:
            mean = np.array([prior.parameters["mu"] for prior in own.b[group]])
            sd = np.array([prior.parameters["sigma"] for prior in own.b[group]])
        effects.append(np.tile(mean, (len(block.block.levels), 1)))
        D.append(np.diag(sd**2))
        means.append(mean)
    scalars = {}
    for name in design.parameters:
        zeros = float(np.clip(zero_count(design) / design.n_rows, 0.05, 0.9))
        scalars[name] = {
            "sigma": outcome_spread(design) * np.sqrt(design.mean_weight),
            "nu": 8.0,
            "alpha": 1.0,
            "phi": 5.0,
            "zi": 0.5 * zeros,
            "hu": zeros,
        }[name]
    cuts = np.empty(0)
    if design.spec.family.outcome == "ordered":
        shares = category_counts(design) + 0.5
        below = np.cumsum(shares / shares.sum())[:-1]
        cuts = to_link(design.spec.family.link, below)
    return Preliminary(beta=beta, effects=effects, D=D, means=means, scalars=scalars, cuts=cuts)
