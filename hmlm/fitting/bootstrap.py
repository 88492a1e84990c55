"""The parametric bootstrap: simulate outcomes from a fit, refit, look at the spread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hmlm.cells import needs_rows
from hmlm.design import Design
from hmlm.errors import HmlmError
from hmlm.fitting.parameters import chosen_parameters, interval_table, parameters_of
from hmlm.likelihoods.gaussian import gaussian_sums, known_sigma2, spread_at
from hmlm.likelihoods.optimum import best_point
from hmlm.likelihoods.threads import one_blas_thread
from hmlm.progress import progress_bar

if TYPE_CHECKING:
    import pandas as pd

REFITS_AT_ONCE = 25
FEWEST = 20


def bootstrap_intervals(
    fit: Any,
    prob: float = 0.95,
    parameters: str | Sequence[str] | None = None,
    n: int = 1000,
    random_seed: int | None = None,
    progressbar: bool = True,
    executor: Executor | None = None,
) -> pd.DataFrame:
    """Return percentile intervals of a parametric bootstrap (Efron & Tibshirani 1993, chapter 13).

    Parameters
    ----------
    fit : ClassicalFit
        The fit.
    prob : float
        Probability of the intervals.
    parameters : str or sequence of str, optional
        Names such as ``"Days"``, ``"sd_Subject[Days]"`` or ``"sigma"``; all parameters when None.
    n, random_seed, progressbar, executor
        As in `bootstrap_fit`.

    Returns
    -------
    pandas.DataFrame
        Columns ``component, group, term, estimate, lower, upper, prob, interval``. A correlation
        has the percentiles of the refits in which both effects vary.
    """
    chosen = chosen_parameters(fit.design, parameters)
    refits = bootstrap_fit(fit, n, random_seed, progressbar, executor)
    tails = [0.5 - prob / 2, 0.5 + prob / 2]
    bounds = []
    for parameter in chosen:
        values = refits[parameter.name].dropna()
        low, high = values.quantile(tails) if len(values) else (np.nan, np.nan)
        bounds.append((float(low), float(high)))
    return interval_table(chosen, fit.estimates, bounds, prob, "bootstrap")


def bootstrap_fit(
    fit: Any,
    n: int = 1000,
    random_seed: int | None = None,
    progressbar: bool = True,
    executor: Executor | None = None,
) -> pd.DataFrame:
    """Simulate outcomes from a fit and refit each by the same method.

    New group effects are drawn from N(0, D) and residuals from N(0, sigma^2 / weight), or with
    the known standard errors, as `bootMer` of lme4 does by default. Without partial pooling the
    group effects stay as they are.

    Parameters
    ----------
    fit : ClassicalFit
        A fit of a gaussian model.
    n : int
        How many times.
    random_seed : int, optional
        Seed; each refit has its own stream, so an executor changes nothing.
    progressbar : bool
        Whether to show how far it is.
    executor : concurrent.futures.Executor, optional
        Where to refit, such as a `ProcessPoolExecutor`; here, one after the other, when None.

    Returns
    -------
    pandas.DataFrame
        One row a refit and one column a parameter, by its name.

    Examples
    --------
    >>> import hmlm
    >>> dyestuff = hmlm.load_dataset("dyestuff")
    >>> fit = hmlm.Model("Yield ~ 1 + (1 | Batch)", dyestuff).fit(hmlm.REML())
    >>> refits = bootstrap_fit(fit, n=20, random_seed=1, progressbar=False)
    >>> refits.shape, list(refits)
    ((20, 3), ['Intercept', 'sd_Batch[Intercept]', 'sigma'])
    """
    import pandas as pd

    times: Any = n
    if not isinstance(times, (int, np.integer)) or times < FEWEST:
        raise HmlmError(f"n must be a whole number of refits, at least {FEWEST}, not {n!r}.")
    group = next(iter(fit.design.spec.groups), "group")
    needs_rows(fit.design.cells, "A bootstrap", group, "Intervals are had by method='profile'")
    if fit.design.spec.family.name != "gaussian":
        raise HmlmError(
            f"the bootstrap simulates gaussian outcomes; the family is "
            f"{fit.design.spec.family.name}: use method='wald'."
        )
    work = _Bootstrap.of(fit)
    seeds = np.random.SeedSequence(random_seed).spawn(n)
    parts = [seeds[k : k + REFITS_AT_ONCE] for k in range(0, n, REFITS_AT_ONCE)]
    found = {}
    with progress_bar("Bootstrap", n, progressbar) as advance:
        for k, refits in _run(work, parts, executor):
            found[k] = refits
            advance(len(refits))
    return pd.DataFrame(
        np.concatenate([found[k] for k in range(len(parts))]),
        columns=[p.name for p in parameters_of(fit.design)],
    )


def _run(
    work: _Bootstrap, parts: list[list[np.random.SeedSequence]], executor: Executor | None
) -> Iterator[tuple[int, np.ndarray]]:
    if executor is None:
        for k, part in enumerate(parts):
            yield k, work(part)
        return
    futures = {executor.submit(work, part): k for k, part in enumerate(parts)}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        for future in futures:
            future.cancel()


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Bootstrap:
    """All that a worker needs.

    Attributes
    ----------
    design : Design
        What was fitted.
    method : object
        How; used where group effects are not integrated out.
    mean : ndarray, shape (N,)
        Mean of the outcomes, given the group effects that stay as they are.
    halves : tuple of ndarray
        A root of the covariance of the effects of each block; none where they stay as they are.
    sigma : ndarray, shape (N,)
        Residual sd, or known standard error, of each row.
    reml : bool
        Whether the likelihood is restricted.
    theta : ndarray or None
        Where the optimiser starts.
    """

    design: Design
    method: Any
    mean: np.ndarray
    halves: tuple[np.ndarray, ...]
    sigma: np.ndarray
    reml: bool
    theta: np.ndarray | None

    @classmethod
    def of(cls, fit: Any) -> _Bootstrap:
        design, estimates = fit.design, fit.estimates
        sigma = np.full(len(design.y), float(estimates.get("sigma", 1.0)))
        if design.weights is not None:
            sigma = sigma / np.sqrt(design.weights)
        mean, halves, theta = fit.fitted, [], None
        if design.spec.pooling == "partial" and design.blocks:
            mean = design.X @ estimates["beta"] if design.terms else np.zeros(len(design.y))
            if design.offset is not None:
                mean = mean + design.offset
            for block in design.blocks:
                sd = estimates[f"sd_{block.group}"]
                cor = estimates.get(f"cor_{block.group}", np.eye(len(sd)))
                values, vectors = np.linalg.eigh(np.outer(sd, sd) * np.nan_to_num(cor))
                halves.append(vectors * np.sqrt(np.maximum(values, 0.0)))
            with one_blas_thread():
                _, theta, _ = best_point(
                    gaussian_sums(design), fit.restricted, sigma2=known_sigma2(design)
                )
        return cls(
            design=design,
            method=fit.method,
            mean=mean,
            halves=tuple(halves),
            sigma=sigma,
            reml=fit.restricted,
            theta=theta,
        )

    def __call__(self, seeds: Sequence[np.random.SeedSequence]) -> np.ndarray:
        """Return the estimates of one refit a seed, in the order of `parameters_of`."""
        parameters = parameters_of(self.design)
        rows = []
        for seed in seeds:
            y = self.outcome(np.random.default_rng(seed))
            estimates = self.estimates(replace(self.design, y=y))
            rows.append([p.value(estimates) for p in parameters])
        return np.array(rows)

    def outcome(self, rng: np.random.Generator) -> np.ndarray:
        """Draw an outcome."""
        y = self.mean + self.sigma * rng.standard_normal(len(self.mean))
        for block, half in zip(self.design.blocks, self.halves, strict=False):
            effects = rng.standard_normal((len(block.levels), len(half))) @ half.T
            y += np.einsum("nk,nk->n", block.Z, effects[block.index])
        return y

    def estimates(self, design: Design) -> dict[str, np.ndarray]:
        """Refit: only the maximum, without group effects and tests."""
        if self.theta is None:
            return dict(self.method.run(design).estimates)
        with one_blas_thread():
            sums = gaussian_sums(design)
            point, theta, _ = best_point(
                sums, self.reml, start=self.theta, sigma2=known_sigma2(design)
            )
        return {
            "beta": sums.basis.to_user(point.gamma),
            "sigma": np.array(np.sqrt(point.sigma2)),
            **spread_at(sums, design, theta, point.sigma2),
        }
