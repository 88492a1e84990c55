"""Outcomes simulated from given parameters, for rows that exist and for planned studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from hmlm.data import read_columns, read_only
from hmlm.design import Design, Variable, make_design
from hmlm.errors import DataError, HmlmError, counted
from hmlm.families import Family
from hmlm.fitting.settings import check_seed
from hmlm.formula import parse_formula
from hmlm.given_parameters import complete_parameters
from hmlm.new_rows import new_rows
from hmlm.prediction import new_groups
from hmlm.prior_draws import outcomes_of
from hmlm.spec import ModelSpec
from hmlm.study import Study
from hmlm.table_columns import outcome_columns, read_data


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Simulation:
    """Outcomes simulated from a model.

    Attributes
    ----------
    design : Design
        The model and its rows.
    parameters : mapping of str to ndarray
        The parameters, by the names of ``design.dims``; without the group effects.
    y : ndarray, shape (n, N)
        Outcomes: successes where there are trials, codes from 0 where there are categories.
    effects : mapping of str to ndarray
        The group effects behind the outcomes, shape (n, J, q).
    """

    design: Design
    parameters: Mapping[str, np.ndarray]
    y: np.ndarray
    effects: Mapping[str, np.ndarray]

    def frame(self, k: int = 0) -> pd.DataFrame:
        """Return the table of the model with the k-th simulated outcome in place of its own.

        Raises
        ------
        HmlmError
            If the outcome of the formula is no column but made of columns.
        """
        spec = self.design.spec
        if spec.outcome not in spec.columns:
            raise HmlmError(
                f"the outcome '{spec.outcome}' is made of columns and cannot be put back into a "
                "table: use .y, or a formula whose outcome is a column."
            )
        frame = self.design.data.frame.copy()
        frame[spec.outcome] = self._labelled(self.y[k])
        return frame

    def _labelled(self, y: np.ndarray) -> Any:
        design = self.design
        if design.categories:
            labels = list(design.categories)
            ordered = design.spec.family.outcome == "ordered"
            values = [labels[code] for code in y.astype(np.int64)]
            return pd.Categorical(values, labels, ordered=ordered)
        return y.astype(np.int64) if design.spec.family.discrete else y


def simulate_outcomes(
    model_or_design: Any,
    parameters: Mapping[str, Any],
    random_seed: int | None = None,
    n: int = 1,
) -> Simulation:
    """Simulate outcomes, and new group effects, from given parameters.

    Parameters
    ----------
    model_or_design : Model or Design
        The model with its rows; `plan_design` makes a design for rows without an outcome.
    parameters : mapping of str to number, sequence or mapping
        Every parameter, by the names of ``design.dims`` (``beta``, ``sd_<group>``,
        ``cor_<group>``, ``sigma``, ``cutpoints``) with arrays in the order of the design or
        mappings by label, or one by one as in tables: ``"Days"``, ``"sd_Subject[Days]"``,
        ``"cor_Subject[Intercept, Days]"``. Coefficients are on the scale of the link. Group
        effects are drawn anew from N(0, D) for each simulation, unless ``b_<group>`` gives them.
    random_seed : int, optional
        Seed.
    n : int
        Number of simulations.

    Returns
    -------
    Simulation
        Outcomes `y` of shape (n, N), `effects`, and tables by ``frame(k)``.

    Raises
    ------
    HmlmError
        If a parameter is missing, unknown, of a wrong shape or out of range, or the parameters
        give a mean that the family cannot have.

    References
    ----------
    .. [1] Gelman and Hill (2007), Data Analysis Using Regression and Multilevel/Hierarchical
       Models, chapter 8.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.simulation import simulate_outcomes
    >>> model = hmlm.Model("Reaction ~ Days + (1 | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> simulated = simulate_outcomes(
    ...     model,
    ...     {"Intercept": 250, "Days": 10, "sd_Subject": 35, "sigma": 30},
    ...     random_seed=1,
    ...     n=3,
    ... )
    >>> simulated.y.shape, simulated.effects["b_Subject"].shape
    ((3, 180), (3, 18, 1))
    """
    design: Design = getattr(model_or_design, "design", model_or_design)
    times: Any = n
    if isinstance(times, bool) or not isinstance(times, (int, np.integer)) or times < 1:
        raise HmlmError(f"n must be a positive whole number of simulations, not {n!r:.40}.")
    complete = complete_parameters(design, parameters)
    rng = np.random.default_rng(check_seed(random_seed))
    y, effects = draw_simulations(design, complete, rng, n)
    own = {k: v for k, v in complete.items() if k not in effects}
    return Simulation(design=design, parameters=own, y=y, effects=effects)


def draw_simulations(
    design: Design, parameters: Mapping[str, np.ndarray], rng: np.random.Generator, n: int = 1
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw outcomes and group effects from complete parameters; see `simulate_outcomes`.

    Returns
    -------
    y : ndarray, shape (n, N)
        Outcomes.
    effects : dict of str to ndarray
        Group effects, shape (n, J, q).
    """
    flat = {k: np.broadcast_to(v, (n, *np.shape(v))) for k, v in parameters.items()}
    rows = new_rows(design, None, "include")
    effects = {v.name: flat[v.name] for v in design.variables if _is_given(v, flat)}
    if any(v.kind == "group" and v.name not in effects for v in design.variables):
        for name, drawn in new_groups(design, flat, replace(rows, modes={}), rng).items():
            if name not in effects:
                levels = np.arange(len(design.coords[design.dims[name][0]]))
                effects[name] = drawn(levels) if callable(drawn) else drawn
    y = outcomes_of(design, {**flat, **effects}, rows, rng)
    if bad := int(np.isnan(y).any(axis=0).sum()):
        raise HmlmError(
            f"these parameters give {counted(bad, 'row')} a mean that a {design.spec.family} "
            "outcome cannot have: use other coefficients, or the log link."
        )
    return y, effects


def _is_given(variable: Variable, flat: Mapping[str, np.ndarray]) -> bool:
    return variable.kind == "group" and variable.name in flat


def plan_design(
    formula: str | Sequence[str],
    study_or_frame: Any,
    family: str | Family = "gaussian",
    priors: Mapping[str, Any] | None = None,
    *,
    categories: int | Sequence[Any] | None = None,
    link: str | None = None,
    weights: str | None = None,
    se: str | None = None,
    random_seed: Any = None,
) -> Design:
    """Make the design of a model whose outcome is not there yet.

    Parameters
    ----------
    formula, family, priors, link, weights, se
        As in `hmlm.Model`. The outcome is a plain name.
    study_or_frame : Study or data frame
        A plan from `make_study`, or a table of groups and predictors; if the table has the outcome
        already it is kept.
    categories : int or sequence, optional
        Categories of an ordinal or categorical outcome that is not there yet.
    random_seed : int or numpy.random.SeedSequence, optional
        Seed of the table of a study.

    Returns
    -------
    Design
        With a placeholder as its outcome, to simulate from.

    Raises
    ------
    HmlmError
        If the outcome is not a plain name, or its categories are not known.

    Examples
    --------
    >>> from hmlm.simulation import plan_design
    >>> from hmlm.study import make_study
    >>> study = make_study(groups={"school": 5}, per_group=4, predictors={"x": "binary"})
    >>> plan_design("y ~ x + (1 | school)", study, random_seed=1).X.shape
    (20, 2)
    """
    frame = study_or_frame
    if isinstance(study_or_frame, Study):
        frame = study_or_frame.make_frame(random_seed)
    spec = parse_formula(formula, family, priors, weights, link, se)
    names = list(frame) if isinstance(frame, Mapping) else list(getattr(frame, "columns", []))
    if any(c not in names for c in outcome_columns(spec) or (spec.outcome,)):
        if spec.outcome not in spec.columns:
            raise HmlmError(
                f"the outcome '{spec.outcome}' is not there yet and cannot be made from columns: "
                "write a plain name before the '~'."
            )
        extra = (spec.trials, spec.standard_error, spec.weights)
        wanted = [*spec.columns, *(f for g in spec.all_groups for f in g.split(":"))]
        wanted += [c for c in extra if c is not None and c in names]
        needed = [c for c in dict.fromkeys(wanted) if c != spec.outcome]
        frame = read_columns(frame, needed or names[:1])
        frame[spec.outcome] = _placeholder(spec, frame, categories)
    return make_design(spec, read_data(spec, frame))


def _placeholder(spec: ModelSpec, frame: pd.DataFrame, categories: Any) -> Any:
    """Return an outcome that the family could have."""
    n, family = len(frame), spec.family
    turn = np.arange(n)
    if family.outcome == "trials" and spec.trials is not None:
        trials = frame[spec.trials] if spec.trials in frame else np.full(n, float(spec.trials))
        most = np.asarray(trials, dtype=float)
        return np.where(turn % 2 == 0, most, 0.0)
    if family.outcome in ("ordered", "category"):
        if categories is None:
            raise DataError(
                f"the {family.name} outcome '{spec.outcome}' is not there yet: say how many "
                "categories it has, as categories=5, or name them."
            )
        labels = range(categories) if isinstance(categories, int) else categories
        return pd.Categorical([list(labels)[k % len(labels)] for k in turn], labels, ordered=True)
    step = turn / max(n - 1, 1)
    return {
        "real": 2 * step - 1,
        "positive": 1 + step,
        "unit": 0.25 + 0.5 * step,
        "count": turn % 3,
    }.get(family.outcome, turn % 2)


def with_outcome(design: Design, y: np.ndarray) -> Design:
    """Return a design with another outcome of the same rows.

    Raises
    ------
    DataError
        If the outcome is the same in all rows, so that nothing can be estimated.
    """
    trials = design.trials
    same = np.ptp(y) == 0 if trials is None else not y.any() or bool((y == trials).all())
    if same:
        raise DataError("the simulated outcome is the same in all rows")
    return replace(design, y=read_only(np.ascontiguousarray(y)))
