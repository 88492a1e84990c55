"""Power of a planned study by simulation: what a design can show before it is paid for."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hmlm.design import Design
from hmlm.errors import HmlmError, counted, listed, suggest
from hmlm.families import Family
from hmlm.fitting.settings import check_seed
from hmlm.given_parameters import complete_parameters
from hmlm.simulation import draw_simulations, plan_design, with_outcome
from hmlm.simulation_runs import (
    Seeds,
    Task,
    check_simulations,
    default_method,
    failure,
    run_simulations,
)
from hmlm.study import Study

FITS_AT_ONCE = 20
_FIGURES = ("estimate", "std_error", "lower", "upper", "p_value")


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PowerResult:
    """What a planned study can show, by simulation.

    Attributes
    ----------
    table : pandas.DataFrame
        One row for each setting that was varied and each tested coefficient. Columns: what was
        varied, ``test``, ``effect`` (the true value), ``n_simulations`` (those that worked),
        ``failed``, ``power`` (share of tests that reject) with its Monte Carlo standard error
        ``power_mcse``, ``type_s`` (share of the rejections whose sign is wrong), ``type_m`` (mean
        of abs(estimate / effect) among the rejections), ``interval_width`` (mean), ``coverage``
        of the intervals with ``coverage_mcse``, ``bias`` (mean estimate less the effect) with
        ``bias_mcse``, ``sd_estimate`` (of the estimates between simulations) and ``std_error``
        (their mean standard error), and ``with_problems`` (fits whose status has a problem).
    simulations : pandas.DataFrame
        One row for each simulation and tested coefficient: estimate, standard error, interval,
        p-value where there is one, whether the test rejects, and the reason of a failure.
    varied : tuple of str
        What was varied.
    sizes : tuple of str
        Which of these are grouping factors, whose number of levels was varied.
    alpha : float
        Level of the tests.
    method : object
        The method of the fits.
    random_seed : int
        The seed.
    seconds : float
        How long it took.
    """

    table: pd.DataFrame
    simulations: pd.DataFrame
    varied: tuple[str, ...]
    sizes: tuple[str, ...]
    alpha: float
    method: Any
    random_seed: int
    seconds: float

    @property
    def failures(self) -> pd.DataFrame:
        """How many simulations failed, by setting and reason: columns as varied, reason, count."""
        keys = [*self.varied, "reason"]
        rows = self.simulations[self.simulations["reason"] != ""]
        rows = rows.drop_duplicates([*self.varied, "simulation"])
        return rows.groupby(keys, sort=False).size().rename("count").reset_index()

    def __str__(self) -> str:
        """Return the table, rounded, and what failed."""
        shown = self.table.drop(columns=["power_mcse", "coverage_mcse", "bias_mcse"])
        lines = [
            f"Power at alpha = {self.alpha:g} by {self.method}, "
            f"{counted(int(self.table['n_simulations'].sum()), 'fit')} in {self.seconds:.1f} s.",
            shown.round(3).to_string(index=False),
        ]
        lines += [
            f"{counted(int(row['count']), 'simulation')} failed: {row['reason']}"
            for _, row in self.failures.iterrows()
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return str(self.table.round(3).to_html(index=False))


def plan_power(
    formula: str | Sequence[str],
    study_or_frame: Any,
    parameters: Mapping[str, Any],
    test: str | Sequence[str],
    alpha: float = 0.05,
    n_simulations: int = 1000,
    method: Any = None,
    executor: Executor | None = None,
    progressbar: bool = True,
    random_seed: int | None = None,
    vary: Mapping[str, Sequence[Any]] | None = None,
    *,
    family: str | Family = "gaussian",
    priors: Mapping[str, Any] | None = None,
    link: str | None = None,
    weights: str | None = None,
    se: str | None = None,
    categories: int | Sequence[Any] | None = None,
) -> PowerResult:
    """Simulate a study many times, fit every time, and count what the tests say.

    Parameters
    ----------
    formula : str or sequence of str
        The model, which is both simulated and fitted.
    study_or_frame : Study or data frame
        A plan from `make_study`, or a table of groups and predictors.
    parameters : mapping of str to number, sequence or mapping
        Every parameter, as in `simulate_outcomes`: ``{"Intercept": 0, "x": 0.3, "sd_school": 0.5,
        "sigma": 1}``.
    test : str or sequence of str
        The population coefficients whose power is asked for.
    alpha : float
        Level of the two-sided tests; intervals have probability 1 - alpha.
    n_simulations : int
        Simulations of each setting. The Monte Carlo standard error of a power of 0.8 is 0.013
        with 1,000.
    method : object, optional
        How to fit: `hmlm.REML()` for gaussian models with groups and `hmlm.Laplace()` for other
        families when None (`hmlm.OLS()` and `hmlm.GLM()` without groups, `hmlm.NUTS()` where none
        of these has the family).
    executor : concurrent.futures.Executor, optional
        Where to fit; threads of this process when None. Results do not depend on it. Small models
        gain more from a `concurrent.futures.ProcessPoolExecutor`.
    progressbar : bool
        Whether to show how far it is.
    random_seed : int, optional
        Seed; each simulation has its own stream.
    vary : mapping of str to sequence, optional
        Settings to compare, in all combinations: numbers of groups of the study by the name of the
        factor, ``"per_group"``, or values of one parameter, as ``{"school": [10, 20], "x": [0.2,
        0.4]}``.
    family, priors, link, weights, se
        As in `hmlm.Model`.
    categories : int or sequence, optional
        Categories of an ordinal or categorical outcome.

    Returns
    -------
    PowerResult
        Power, errors of sign and size, precision, coverage and bias of every setting.

    Raises
    ------
    HmlmError
        If a parameter is missing, a name is unknown, or all simulations of a setting fail.

    Notes
    -----
    A classical test rejects where p is below alpha, a Bayesian one where the equal-tailed interval
    excludes zero. With an effect of zero the power is the type I error, and errors of sign and
    size are blank. Predictors of a study are drawn once for each setting; see `make_study`. A
    simulation that fails (an outcome without variation, a fit that cannot be made) is left out of
    the figures and counted with its reason.

    References
    ----------
    .. [1] Gelman and Carlin (2014), Beyond power calculations: assessing type S (sign) and type M
       (magnitude) errors, Perspectives on Psychological Science 9, 641-651.
    .. [2] Gelman and Hill (2007), Data Analysis Using Regression and Multilevel/Hierarchical
       Models, chapter 20.
    .. [3] Morris, White and Crowther (2019), Using simulation studies to evaluate statistical
       methods, Statistics in Medicine 38, 2074-2102, table 6 (Monte Carlo standard errors).

    Examples
    --------
    >>> from hmlm.power_study import plan_power
    >>> from hmlm.study import make_study
    >>> study = make_study(
    ...     groups={"school": 20}, per_group=10, predictors={"treated": "binary by school"}
    ... )
    >>> result = plan_power(
    ...     "score ~ treated + (1 | school)",
    ...     study,
    ...     {"Intercept": 0, "treated": 0.5, "sd_school": 0.4, "sigma": 1},
    ...     test="treated",
    ...     n_simulations=50,
    ...     vary={"school": [10, 40]},
    ...     random_seed=1,
    ...     progressbar=False,
    ... )
    >>> result.table[["school", "test", "effect", "failed"]]
       school     test  effect  failed
    0      10  treated     0.5       0
    1      40  treated     0.5       0
    >>> bool(result.table["power"].is_monotonic_increasing)
    True
    """
    if not 0 < alpha < 1:
        raise HmlmError(f"alpha must lie between 0 and 1, not {alpha!r}.")
    n = check_simulations(n_simulations)
    seed = check_seed(random_seed)
    tests = (test,) if isinstance(test, str) else tuple(test)
    began = time.perf_counter()
    options: dict[str, Any] = {"family": family, "priors": priors, "link": link}
    options |= {"weights": weights, "se": se, "categories": categories}
    tasks: list[Task] = []
    settings = list(_settings(vary or {}))
    roots = np.random.SeedSequence(seed).spawn(len(settings))
    for root, setting in zip(roots, settings, strict=True):
        first, *seeds = root.spawn(n + 1)
        plan, given = _apply(setting, study_or_frame, parameters)
        design = plan_design(formula, plan, random_seed=first, **options)
        places = [_place(design, name) for name in tests]
        complete = complete_parameters(design, given)
        method = default_method(design) if method is None else method
        work = _Work(
            design=design, parameters=complete, method=method, places=places, prob=1 - alpha
        )
        tasks.append(Task(work=work, seeds=seeds))
    records = run_simulations(
        tasks, executor, at_once=FITS_AT_ONCE, label="Power", progressbar=progressbar
    )
    pieces = []
    for setting, task, found in zip(settings, tasks, records, strict=True):
        pieces.append(_simulations(setting, task.work, tests, found, alpha))
    simulations = pd.concat(pieces, ignore_index=True)
    return PowerResult(
        table=pd.DataFrame([_row(piece, list(s)) for piece, s in _by_test(pieces, settings)]),
        simulations=simulations,
        varied=tuple(vary or {}),
        sizes=tuple(g for g in getattr(study_or_frame, "groups", ()) if g in (vary or {})),
        alpha=alpha,
        method=method,
        random_seed=seed,
        seconds=time.perf_counter() - began,
    )


def _settings(vary: Mapping[str, Sequence[Any]]) -> Any:
    for name, values in vary.items():
        if isinstance(values, str) or not len(values):
            raise HmlmError(f"vary['{name}'] must be a sequence of values, not {values!r:.40}.")
    for values in itertools.product(*vary.values()):
        yield dict(zip(vary, values, strict=True))


def _apply(
    setting: Mapping[str, Any], study_or_frame: Any, parameters: Mapping[str, Any]
) -> tuple[Any, Mapping[str, Any]]:
    """Return study and parameters of one setting."""
    if not setting:
        return study_or_frame, parameters
    is_study = isinstance(study_or_frame, Study)
    sizes = (*study_or_frame.groups, "per_group") if is_study else ()
    changed = {k: v for k, v in setting.items() if k in sizes}
    given = {k: v for k, v in setting.items() if k not in sizes}
    for name in given:
        if name not in parameters:
            known = [*sizes, *parameters]
            hint = "" if is_study else " Numbers of groups vary in a study from make_study(...)."
            raise HmlmError(
                f"vary names '{name}', which is neither a size of the study nor one of the "
                f"parameters.{suggest(name, known)} There are {listed(known)}.{hint}"
            )
    plan = study_or_frame.vary(**changed) if changed else study_or_frame
    return plan, {**parameters, **given}


def _place(design: Design, name: str) -> int:
    if name not in design.terms:
        raise HmlmError(
            f"there is no population coefficient '{name}' to test.{suggest(name, design.terms)} "
            f"The model has {listed(design.terms)}."
        )
    return design.terms.index(name)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Work:
    """All that a worker needs to simulate and fit."""

    design: Design
    parameters: Mapping[str, np.ndarray]
    method: Any
    places: list[int]
    prob: float

    def __call__(self, seeds: Seeds) -> list[tuple[np.ndarray, bool, str]]:
        """Return for each seed the figures of every test, problems, and a reason of failure."""
        return [self._one(seed) for seed in seeds]

    def _one(self, seed: np.random.SeedSequence) -> tuple[np.ndarray, bool, str]:
        rng = np.random.default_rng(seed)
        blank = np.full((len(self.places), len(_FIGURES)), np.nan)
        try:
            y = draw_simulations(self.design, self.parameters, rng)[0][0]
            design = with_outcome(self.design, y)
            fit = self.method.run(design, random_seed=int(rng.integers(2**31)), progressbar=False)
            numbers = fit.describe("beta", self.prob)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError, RuntimeError) as error:
            return blank, False, failure(error)
        for k, figure in enumerate(_FIGURES):
            values = getattr(numbers, figure)
            if values is not None:
                blank[:, k] = np.asarray(values)[self.places]
        if not np.isfinite(blank[:, :2]).all():
            problem = " ".join(fit.status.problems) or "no finite estimate and standard error"
            return blank, True, failure(HmlmError(problem))
        return blank, not fit.status.converged, ""


def _simulations(
    setting: Mapping[str, Any],
    work: Any,
    tests: tuple[str, ...],
    found: list[tuple[np.ndarray, bool, str]],
    alpha: float,
) -> pd.DataFrame:
    """Return one row a simulation and test."""
    n, t = len(found), len(tests)
    frame = pd.DataFrame({name: [value] * (n * t) for name, value in setting.items()})
    frame["simulation"] = np.repeat(np.arange(n), t)
    frame["test"] = list(tests) * n
    frame["effect"] = np.tile(work.parameters["beta"][work.places], n)
    figures = np.concatenate([figures for figures, _, _ in found])
    frame[list(_FIGURES)] = figures
    p, lower, upper = (frame[c].to_numpy() for c in ("p_value", "lower", "upper"))
    frame["reject"] = np.where(np.isnan(p), (lower > 0) | (upper < 0), p < alpha)
    frame["problem"] = np.repeat([problem for _, problem, _ in found], t)
    frame["reason"] = np.repeat([reason for _, _, reason in found], t)
    return frame


def _by_test(pieces: list[pd.DataFrame], settings: list[dict[str, Any]]) -> Any:
    for piece, setting in zip(pieces, settings, strict=True):
        for _, rows in piece.groupby("test", sort=False):
            yield rows, setting


def _row(rows: pd.DataFrame, varied: list[str]) -> dict[str, Any]:
    """Return the figures of one setting and one test (Morris et al. 2019, table 6)."""
    first = rows.iloc[0]
    good = rows[rows["reason"] == ""]
    n, effect = len(good), float(first["effect"])
    if not n:
        reasons = rows["reason"].value_counts()
        raise HmlmError(
            f"all {counted(len(rows), 'simulation')} failed, most often because: "
            f"{reasons.index[0]}. Give other parameters or another method."
        )
    estimate = good["estimate"].to_numpy()
    reject = good["reject"].to_numpy(dtype=bool)
    covers = ((good["lower"] <= effect) & (effect <= good["upper"])).to_numpy()
    found = estimate[reject]
    told = effect != 0 and len(found) > 0
    sd = float(estimate.std(ddof=1)) if n > 1 else np.nan
    return {
        **{name: first[name] for name in varied},
        "test": first["test"],
        "effect": effect,
        "n_simulations": n,
        "failed": len(rows) - n,
        "power": float(reject.mean()),
        "power_mcse": _share_error(float(reject.mean()), n),
        "type_s": float((np.sign(found) != np.sign(effect)).mean()) if told else np.nan,
        "type_m": float(np.abs(found / effect).mean()) if told else np.nan,
        "interval_width": float((good["upper"] - good["lower"]).mean()),
        "coverage": float(covers.mean()),
        "coverage_mcse": _share_error(float(covers.mean()), n),
        "bias": float(estimate.mean() - effect),
        "bias_mcse": sd / np.sqrt(n),
        "sd_estimate": sd,
        "std_error": float(good["std_error"].mean()),
        "with_problems": int(good["problem"].sum()),
    }


def _share_error(share: float, n: int) -> float:
    return float(np.sqrt(share * (1 - share) / n))


power = plan_power
