"""Gibbs sampling for Gaussian models: a second road to the posterior, to check the first."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hmlm.default_priors import resolve_priors
from hmlm.design import Design
from hmlm.errors import HmlmError
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.fitting.diagnostics import diagnose
from hmlm.fitting.interruption import Interruption, SamplingInterrupted, find_interruption
from hmlm.fitting.settings import check_plain, check_seed, check_whole
from hmlm.likelihoods.gibbs_steps import State, iterate, log_prior, start
from hmlm.likelihoods.gibbs_sums import GibbsSums, make_gibbs_sums
from hmlm.likelihoods.threads import one_blas_thread
from hmlm.progress import progress_bar

SETTINGS_AT_LEAST = {"draws": 1, "tune": 0, "chains": 1}
MOST_NUMBERS = 250_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Gibbs:
    """The Gibbs sampler, on the posterior that `hmlm.NUTS` samples.

    It shares no likelihood code with NUTS, and samples the group effects instead of integrating
    over them: where the two agree, each has checked the other. All chains move together. An
    iteration draws, each given the rest:

    1. the coefficients and all group effects, together, from their normal distribution (a Student
       prior of a coefficient is a normal one with a random variance);
    2. the covariance matrix of each factor's effects, given the effects. No prior of sds and
       correlations such as half Student t and LKJ makes this step conjugate. So a draw from the
       distribution that is conjugate to a flat prior, inverse gamma or inverse Wishart, is taken
       as a proposal and accepted with the probability of Metropolis and Hastings: the target is
       exactly the posterior, whatever the priors;
    3. the same covariance matrix, given the effects in units of it: a regression, again with a
       Metropolis-Hastings step for the priors (interweaving, Yu & Meng 2011). This keeps the
       chain moving where an sd is near zero. Where there are several factors, the one with most
       effects is integrated out in steps 2 and 3 of the others;
    4. the residual sd, as in step 2.

    Parameters
    ----------
    draws, tune : int
        Iterations kept, and left out at the beginning, for each chain. Nothing is tuned.
    chains : int
        Number of chains, each started at variances of its own.

    Raises
    ------
    HmlmError
        If a setting is out of range.

    References
    ----------
    .. [1] Gelfand, Hills, Racine-Poon and Smith (1990), Illustration of Bayesian inference in
       normal data models using Gibbs sampling, JASA 85, 972-985.
    .. [2] Tierney (1994), Markov chains for exploring posterior distributions, Annals of
       Statistics 22, 1701-1728.
    .. [3] Yu and Meng (2011), To center or not to center: that is not the question, Journal of
       Computational and Graphical Statistics 20, 531-570.

    Examples
    --------
    >>> import hmlm
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep)
    >>> fit = model.fit(hmlm.Gibbs(draws=500), random_seed=1, progressbar=False)
    >>> fit.draws["posterior"]["beta"].shape
    (4, 500, 2)
    """

    draws: int = 2000
    tune: int = 500
    chains: int = 4

    def __post_init__(self) -> None:
        """Check the settings."""
        check_whole(self, SETTINGS_AT_LEAST)

    def __str__(self) -> str:
        """Return the name of the method."""
        return "Gibbs"

    def run(
        self, design: Design, *, random_seed: int | None = None, progressbar: bool = True
    ) -> BayesFit:
        """Sample the posterior of a design.

        Parameters
        ----------
        design : Design
            The model.
        random_seed : int, optional
            Seed; the same seed gives the same draws.
        progressbar : bool
            Whether to show a progress bar.

        Raises
        ------
        HmlmError
            If the family is not gaussian, there is nothing to pool, or the sampler does not cover
            the model; the message says what to use instead.
        SamplingInterrupted
            If it is interrupted after tuning: a KeyboardInterrupt that has the fit of what was
            drawn, which `Model.fit` returns.
        """
        _check_design(design)
        priors = resolve_priors(design)
        seed = check_seed(random_seed)
        size = self.chains * self.draws * sum(len(b.levels) * len(b.columns) for b in design.blocks)
        if size > MOST_NUMBERS:
            raise HmlmError(
                f"hmlm.Gibbs() keeps every draw of the group effects, {size:,} numbers in all (at "
                f"most {MOST_NUMBERS:,}): use fewer draws, or hmlm.NUTS(), which draws them when "
                "they are asked for."
            )
        began = time.perf_counter()
        with one_blas_thread(), np.errstate(divide="ignore", invalid="ignore"):
            sums = make_gibbs_sums(design, priors)
            try:
                found, rates, stopped = self._sample(sums, np.random.default_rng(seed), progressbar)
            except np.linalg.LinAlgError as error:
                raise HmlmError(
                    "hmlm.Gibbs() came to a point where a covariance matrix cannot be told from a "
                    "singular one. Give the sds tighter priors, or use hmlm.NUTS()."
                ) from error
        parameters = {name: found[name] for name in design.dims if not name.startswith("b_")}
        effects = {name: found[name] for name in design.dims if name.startswith("b_")}
        fit = BayesFit(
            design=design,
            method=self,
            priors=priors,
            status=self._status(design, parameters, rates),
            random_seed=seed,
            seconds=time.perf_counter() - began,
            _parameters=parameters,
            _stats={"acceptance_rate": rates},
            _draw_effects=lambda: effects,
            _runs=((seed, rates.shape[1]),),
        )
        if stopped is None:
            return fit
        raise SamplingInterrupted(stopped.note, replace(fit, status=stopped.mark(fit.status)))

    def _sample(
        self, sums: GibbsSums, rng: np.random.Generator, progressbar: bool
    ) -> tuple[dict[str, np.ndarray], np.ndarray, Interruption | None]:
        """Return the draws of every variable, the share of proposals accepted, and any interrupt.

        All chains move together, so that an interrupt leaves the same number of draws in each.
        """
        state = start(sums, self.chains, rng)
        found: dict[str, np.ndarray] = {}
        rates = np.empty((self.chains, self.draws))
        done = 0
        try:
            with progress_bar("Gibbs", self.tune + self.draws, progressbar, stay=True) as advance:
                for iteration in range(-self.tune, self.draws):
                    state.accepted[:], state.proposed = 0.0, 0
                    iterate(sums, state, rng)
                    advance(1)
                    if iteration < 0:
                        continue
                    if iteration == 0 and not np.isfinite(_log_priors(sums, state)).all():
                        raise HmlmError(
                            "hmlm.Gibbs() found no point that the priors of the sds allow: raise "
                            "tune, or use hmlm.NUTS()."
                        )
                    rates[:, iteration] = state.accepted / state.proposed
                    for name, value in _parameters(sums, state).items():
                        if name not in found:
                            found[name] = np.empty((self.chains, self.draws, *value.shape[1:]))
                        found[name][:, iteration] = value
                    done = iteration + 1
        except KeyboardInterrupt:
            stopped = find_interruption(np.full(self.chains, done), self.draws)
            n = self.draws if stopped is None else stopped.n
            return {k: v[:, :n].copy() for k, v in found.items()}, rates[:, :n].copy(), stopped
        return found, rates, None

    def _status(self, design: Design, parameters: dict[str, np.ndarray], rates: np.ndarray) -> Any:
        import xarray as xr

        coords = {k: np.asarray(v, dtype=object) for k, v in design.coords.items()}
        dataset = xr.Dataset(
            {
                name: (("chain", "draw", *design.dims[name]), values)
                for name, values in parameters.items()
            },
            coords={d: coords[d] for name in parameters for d in design.dims[name]},
        )
        notes = [
            "Sampled by Gibbs steps, with Metropolis-Hastings steps for the priors of sds and "
            f"correlations ({rates.mean():.0%} accepted)."
        ]
        status = diagnose(dataset, {}, 0, [*notes, *design.notes])
        problems = tuple(p.replace("hmlm.NUTS(", "hmlm.Gibbs(") for p in status.problems)
        return replace(status, problems=problems)


def _parameters(sums: GibbsSums, state: State) -> dict[str, np.ndarray]:
    """Return the variables of the model, on the user's scale, the chain on the first axis."""
    basis = sums.basis
    beta = basis.beta + np.linalg.solve(basis.R, state.gamma.T).T if sums.p else state.gamma
    found = {"beta": beta, "sigma": state.sigma}
    for factor, L, b in zip(sums.factors, state.L, state.b, strict=True):
        half = factor.T @ L
        D = half @ np.swapaxes(half, 1, 2)
        sd = np.sqrt(np.diagonal(D, axis1=1, axis2=2))
        cor = np.clip(D / (sd[:, :, None] * sd[:, None, :]), -1.0, 1.0)
        at = np.arange(len(factor.T))
        cor[:, at, at] = 1.0
        group = factor.block.group
        found |= {f"sd_{group}": sd, f"cor_{group}": cor, f"b_{group}": b @ factor.T.T}
    return found


def _log_priors(sums: GibbsSums, state: State) -> np.ndarray:
    """Return the log prior of the sds, by chain."""
    total = log_prior(sums.sigma_prior, state.sigma)
    for factor, L in zip(sums.factors, state.L, strict=True):
        sd = np.sqrt(((factor.T @ L) ** 2).sum(axis=2))
        priors = [prior for part in factor.parts for prior in part.priors]
        total = total + sum(log_prior(prior, sd[:, a]) for a, prior in enumerate(priors))
    return total


def _check_design(design: Design) -> None:
    if design.spec.family.name != "gaussian":
        raise HmlmError(
            f"hmlm.Gibbs() samples gaussian models; the family is {design.spec.family.name}: use "
            "hmlm.NUTS(), or hmlm.Laplace() for maximum likelihood."
        )
    if design.known_se:
        raise HmlmError(
            f"hmlm.Gibbs() draws the residual sd, and the standard errors of "
            f"'{design.spec.outcome}' are known ('{design.spec.standard_error}'): use hmlm.NUTS()."
        )
    check_plain(design, "hmlm.Gibbs() samples")
    if design.spec.pooling != "partial" or not design.blocks:
        raise HmlmError(
            "hmlm.Gibbs() samples models that pool partially, and this one does not: use "
            "hmlm.NUTS(), or add a group term such as (1 | group)."
        )
