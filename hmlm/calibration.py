"""Simulation-based calibration: whether posteriors are right where truth comes from the prior."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from hmlm.default_priors import ResolvedPriors, resolve_priors
from hmlm.design import Design
from hmlm.errors import HmlmError, PriorError, counted, listed
from hmlm.families import Family
from hmlm.fitting.settings import check_seed
from hmlm.given_parameters import number_names
from hmlm.new_rows import new_rows
from hmlm.prior_distributions import check_proper
from hmlm.prior_draws import draw_variables, outcomes_of
from hmlm.rank_uniformity import rank_truth, uniformity_table
from hmlm.simulation import plan_design, with_outcome
from hmlm.simulation_runs import Seeds, Task, check_simulations, failure, run_simulations

Simulator = Callable[[Design, Mapping[str, np.ndarray], np.random.Generator], Any]
LOG_LIKELIHOOD = "log_likelihood"
FEWEST_RANKS = 9
MOST_BINS = 20
EXPECTED = 5  # simulations in a bin of the chi-square statistic


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Calibration:
    """Ranks of true values among posterior draws, over many simulated data sets.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a quantity: ``chi2`` of the ranks in bins, ``df`` and ``p_value``; ``mean_rank``
        (as a share of the largest, a half where the posterior is right); ``furthest`` (largest
        difference of the ECDF of the ranks from the uniform one); ``inside`` (whether the ECDF
        stays within its simultaneous band).
    ranks : pandas.DataFrame
        One row a simulation, one column a quantity: the number of posterior draws below the true
        value, from 0 to `n_draws`.
    true_values : pandas.DataFrame
        The true values, in the same shape.
    n_draws : int
        Posterior draws that ranks are among, thinned to near independence.
    diagnostics : pandas.DataFrame
        For each simulation the smallest effective sample size, the divergences, and the reason of
        a failure, empty where there was none.
    prob : float
        Probability of the simultaneous bands.
    random_seed : int
        The seed.
    seconds : float
        How long it took.
    """

    table: pd.DataFrame
    ranks: pd.DataFrame
    true_values: pd.DataFrame
    n_draws: int
    diagnostics: pd.DataFrame
    prob: float
    random_seed: int
    seconds: float

    @property
    def suspects(self) -> tuple[str, ...]:
        """Quantities whose ECDF leaves the band, or whose p-value is below 0.05 / quantities."""
        table = self.table
        wrong = ~table["inside"] | (table["p_value"] < 0.05 / len(table))
        return tuple(table.loc[wrong, "quantity"])

    @property
    def failures(self) -> pd.Series:
        """How many simulations failed, by reason."""
        reasons = self.diagnostics["reason"]
        return reasons[reasons != ""].value_counts()

    def __str__(self) -> str:
        """Return the table and what is to be said about it."""
        K = len(self.table)
        lines = [
            f"{counted(len(self.ranks), 'simulation')}, ranks among {self.n_draws} draws "
            f"({self.seconds:.1f} s).",
            self.table.round(3).to_string(index=False),
        ]
        by_chance = (1 - self.prob) * K
        lines.append(
            f"Outside of what chance explains: {listed(self.suspects)} ({len(self.suspects)} of "
            f"{K}; of {K} calibrated ones {by_chance:.1f} would leave their bands)."
            if self.suspects
            else f"All {counted(K, 'quantity') if K == 1 else f'{K} quantities'} are calibrated as "
            "far as these simulations can tell."
        )
        diverging = int((self.diagnostics["divergences"] > 0).sum())
        if diverging:
            lines.append(f"{counted(diverging, 'fit')} had divergences.")
        lines += [f"{counted(int(n), 'simulation')} failed: {r}" for r, n in self.failures.items()]
        return "\n".join(lines)


def calibrate(
    formula: str | Sequence[str],
    frame: Any,
    priors: Mapping[str, Any] | None = None,
    n_simulations: int = 100,
    method: Any = None,
    *,
    family: str | Family = "gaussian",
    link: str | None = None,
    weights: str | None = None,
    se: str | None = None,
    categories: int | Sequence[Any] | None = None,
    simulator: Simulator | None = None,
    effects: bool = False,
    prob: float = 0.95,
    executor: Executor | None = None,
    random_seed: int | None = None,
    progressbar: bool = True,
) -> Calibration:
    """Draw parameters from the prior, data from them, fit, and rank the truth in the posterior.

    If model, simulator and sampler agree, ranks are uniform: for each parameter, and for the log
    likelihood, which notices what no single parameter does.

    Parameters
    ----------
    formula : str or sequence of str
        The model.
    frame : Study or data frame
        Groups and predictors. An outcome is used for default priors only.
    priors : mapping of str to Prior, optional
        Proper priors, as in `hmlm.Model`; needed for every parameter whose default is scaled by the
        outcome (coefficients, sds, sigma), because that changes from one simulation to the next.
    n_simulations : int
        Number of simulations.
    method : object, optional
        A sampler; ``hmlm.NUTS(draws=500, tune=500, chains=1, cores=1)`` when None.
    family, link, weights, se
        As in `hmlm.Model`.
    categories : int or sequence, optional
        Categories of an outcome that is not in the frame.
    simulator : callable, optional
        Makes the outcome from the design, the true values by variable (each with a first axis of
        length one) and a random generator, shape (N,), to test code of one's own; the model's own
        when None.
    effects : bool
        Whether to rank the group effects too.
    prob : float
        Probability of the simultaneous bands of the ECDFs.
    executor : concurrent.futures.Executor, optional
        Where to fit; threads of this process when None.
    random_seed : int, optional
        Seed; each simulation has its own stream.
    progressbar : bool
        Whether to show how far it is.

    Returns
    -------
    Calibration
        Ranks, with a chi-square statistic and an ECDF band of each quantity; draw them with
        `hmlm.plots.calibration_ranks.plot_calibration_ranks`.

    Raises
    ------
    PriorError
        If a prior is flat or depends on the outcome.
    HmlmError
        If no simulation works.

    Notes
    -----
    Draws are thinned evenly to as many as the smallest effective sample size of nine fits in ten
    [1]_. A data set on which a fit cannot be made (an outcome without variation) is left out and
    counted; leaving out by what the data are, not by what the parameters are, keeps the ranks of
    the others uniform [2]_. Bands of the ECDF are simultaneous, by simulation [3]_; ranks are
    spread at random within their bin, and ties are broken at random.

    References
    ----------
    .. [1] Talts, Betancourt, Simpson, Vehtari and Gelman (2018), Validating Bayesian inference
       algorithms with simulation-based calibration, arXiv:1804.06788.
    .. [2] Modrak, Moon, Kim, Burkner, Huurre, Faltejskova, Gelman and Vehtari (2023),
       Simulation-based calibration checking for Bayesian computation: the choice of test
       quantities shapes sensitivity, Bayesian Analysis.
    .. [3] Sailynoja, Burkner and Vehtari (2022), Graphical test for discrete uniformity and its
       applications in goodness-of-fit evaluation and multiple sample comparison, Statistics and
       Computing 32, 32.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.calibration import calibrate
    >>> from hmlm.study import make_study
    >>> normal, half = hmlm.Prior("normal", sigma=1), hmlm.Prior("half-normal", sigma=1)
    >>> found = calibrate(
    ...     "y ~ 1 + (1 | g)",
    ...     make_study(groups={"g": 5}, per_group=4),
    ...     {"Intercept": normal, "sd": half, "sigma": half},
    ...     n_simulations=4,
    ...     method=hmlm.NUTS(draws=100, tune=100, chains=1, cores=1),
    ...     random_seed=1,
    ...     progressbar=False,
    ... )
    >>> list(found.table["quantity"])
    ['Intercept', 'sd_g[Intercept]', 'sigma', 'log_likelihood']
    """
    n = check_simulations(n_simulations)
    seed = check_seed(random_seed)
    if not 0 < prob < 1:
        raise HmlmError(f"prob must lie between 0 and 1, not {prob!r}.")
    if method is None:
        from hmlm.fitting.nuts import NUTS

        method = NUTS(draws=500, tune=500, chains=1, cores=1)
    began = time.perf_counter()
    first, last, *seeds = np.random.SeedSequence(seed).spawn(n + 2)
    options: dict[str, Any] = {"link": link, "weights": weights, "se": se}
    design = plan_design(
        formula, frame, family, priors, categories=categories, random_seed=first, **options
    )
    resolved = fixed_priors(design)
    work = _Work(
        design=design, priors=resolved, method=method, simulator=simulator, effects=effects
    )
    (records,) = run_simulations(
        [Task(work=work, seeds=seeds)],
        executor,
        at_once=2,
        label="Calibration",
        progressbar=progressbar,
    )
    good = [r for r in records if not r.reason]
    diagnostics = pd.DataFrame(
        [(r.ess, r.divergences, r.reason) for r in records],
        columns=["min_ess", "divergences", "reason"],
    )
    if len(good) < 2:
        reason = diagnostics["reason"].value_counts().index[0]
        raise HmlmError(
            f"{len(records) - len(good)} of {counted(len(records), 'simulation')} failed, most "
            f"often because: {reason}. Use tighter priors or another method."
        )
    rng = np.random.default_rng(last)
    names = _names(design, effects)
    n_draws, bins = _thinning(good)
    truth = np.array([r.truth for r in good])
    ranks = np.array([rank_truth(r.draws, r.truth, n_draws, rng) for r in good])
    return Calibration(
        table=uniformity_table(names, ranks, n_draws, bins, prob, rng),
        ranks=pd.DataFrame(ranks, columns=names),
        true_values=pd.DataFrame(truth, columns=names),
        n_draws=n_draws,
        diagnostics=diagnostics,
        prob=prob,
        random_seed=seed,
        seconds=time.perf_counter() - began,
    )


def fixed_priors(design: Design) -> ResolvedPriors:
    """Return the priors of a design, or raise a PriorError if one is flat or needs the outcome."""
    priors = resolve_priors(design)
    for entry in priors.entries:
        check_proper(entry.prior, entry.parameter)
    y = design.y.copy()
    y[np.arange(len(y)) % 3 > 0] = y.min()
    other = resolve_priors(replace(design, y=y))
    moved = [
        a.parameter
        for a, b in zip(priors.entries, other.entries, strict=True)
        if a.prior != b.prior
    ]
    if moved:
        raise PriorError(
            f"the default priors of {listed(moved)} are scaled by the outcome, which every "
            "simulation draws anew: give them priors, as {'x': hmlm.Prior('normal', sigma=1), "
            "'sd': hmlm.Prior('half-normal', sigma=1)}."
        )
    return priors


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Record:
    """One simulation: draws (D, K), true values (K,), and how sampling went."""

    draws: np.ndarray
    truth: np.ndarray
    ess: float
    divergences: int
    reason: str = ""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Work:
    """All that a worker needs to simulate and fit."""

    design: Design
    priors: ResolvedPriors
    method: Any
    simulator: Simulator | None
    effects: bool

    def __call__(self, seeds: Seeds) -> list[_Record]:
        """Return one record a seed."""
        return [self._one(np.random.default_rng(seed)) for seed in seeds]

    def _one(self, rng: np.random.Generator) -> _Record:
        blank = np.empty(0)
        try:
            truth, design = self.simulate(rng)
            fit = self.method.run(design, random_seed=int(rng.integers(2**31)), progressbar=False)
            flat = fit._flat_draws("include")
            draws = _quantities(design, flat, self.effects)
            ess = _effective(draws.reshape(*fit._shape, -1))
        except (ValueError, ArithmeticError, np.linalg.LinAlgError, RuntimeError) as error:
            return _Record(
                draws=blank, truth=blank, ess=np.nan, divergences=0, reason=failure(error)
            )
        return _Record(
            draws=draws,
            truth=_quantities(design, truth, self.effects)[0],
            ess=ess,
            divergences=int(fit.status.numbers.get("divergences", 0)),
        )

    def simulate(self, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], Design]:
        """Return true values, with a first axis of length one, and a design with an outcome."""
        design = self.design
        levels = {b.group: len(b.levels) for p in design.predictors for b in p.blocks}
        truth = draw_variables(design, self.priors, 1, rng, levels)
        if self.simulator is None:
            y = outcomes_of(design, truth, new_rows(design, None, "include"), rng)[0]
        else:
            y = np.asarray(self.simulator(design, truth, rng), dtype=float)
            if y.shape != design.y.shape:
                raise HmlmError(f"the simulator returned shape {y.shape}, not {design.y.shape}")
        if not np.isfinite(y).all():
            raise HmlmError("the prior gives a mean that the family cannot have")
        return truth, with_outcome(design, y)


def _names(design: Design, effects: bool) -> list[str]:
    names = []
    for variable in design.variables:
        if variable.kind != "group":
            names += [name for name, _ in number_names(design, variable)]
        elif effects:
            levels, columns = (design.coords[d] for d in variable.dims)
            names += [f"{variable.name}[{j}, {c}]" for j in levels for c in columns]
    return [*names, LOG_LIKELIHOOD]


def _quantities(design: Design, flat: Mapping[str, np.ndarray], effects: bool) -> np.ndarray:
    """Return the quantities of every draw, shape (draws, K), in the order of `_names`."""
    from hmlm.log_likelihood import log_likelihood_rows

    columns = []
    for variable in design.variables:
        values = flat[variable.name]
        if variable.kind != "group":
            each = values.reshape(len(values), -1)
            shape = values.shape[1:]
            places = [at for _, at in number_names(design, variable)]
            columns += [each[:, int(np.ravel_multi_index(at, shape)) if at else 0] for at in places]
        elif effects:
            columns += list(values.reshape(len(values), -1).T)
    columns.append(np.asarray(log_likelihood_rows(design, flat)).sum(axis=1))
    return np.column_stack(columns)


def _effective(draws: np.ndarray) -> float:
    """Return the smallest effective sample size of many scalars; draws (chains, draws, K)."""
    from arviz_stats.base.array import array_stats

    if draws.shape[1] < 4:
        return np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        ess = np.asarray(array_stats.ess(draws, method="bulk", chain_axis=0, draw_axis=1))
    return float(np.nanmin(ess)) if np.isfinite(ess).any() else np.nan


def _thinning(records: list[_Record]) -> tuple[int, int]:
    """Return how many draws ranks are among, and how many bins divide the ranks evenly."""
    most = min(len(r.draws) for r in records)
    ess = np.array([r.ess for r in records])
    known = ess[np.isfinite(ess)]
    independent = float(np.quantile(known, 0.1)) if len(known) else FEWEST_RANKS
    L = int(min(most, max(independent, FEWEST_RANKS)))
    bins = int(np.clip(len(records) // EXPECTED, 2, min(MOST_BINS, L + 1)))
    return max((L + 1) // bins, 1) * bins - 1, bins
