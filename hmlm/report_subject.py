"""What a report is about: its fits, and the classical ones that stand beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hmlm.design import Design, make_design
from hmlm.errors import HmlmError, listed
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.fitting.classical_fit import ClassicalFit
from hmlm.fitting.classical_methods import classical_methods
from hmlm.plots.pulls import plain_fit
from hmlm.spec import POOLING_WORDS, with_pooling

MOST_REPLICATED = 20_000_000
UNFIT = (HmlmError, np.linalg.LinAlgError)  # what says that a part does not apply to a model


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Subject:
    """What a report is about.

    Attributes
    ----------
    fits : tuple of BayesFit or ClassicalFit
        The fits that were given, the one that the report is about first.
    companions : mapping of str to ClassicalFit
        Classical fits of the same rows by their pooling, as far as there are any.
    absent : tuple of str
        Why there are no others, in sentences.
    seed : int
        Seed of the replicates.
    draws : int
        Number of replicates.
    """

    fits: tuple[Any, ...]
    companions: dict[str, Any]
    absent: tuple[str, ...]
    seed: int
    draws: int

    @property
    def fit(self) -> Any:
        """The fit that the report is about."""
        return self.fits[0]

    @property
    def design(self) -> Design:
        """Its design."""
        design: Design = self.fit.design
        return design

    @property
    def every(self) -> tuple[Any, ...]:
        """All the fits, without a companion where the same fit was given."""
        others = [
            f for f in self.companions.values() if not any(same_fit(f, own) for own in self.fits)
        ]
        return (*self.fits, *others)

    @property
    def pooled(self) -> bool:
        """Whether the fit pools groups partially."""
        return self.design.spec.pooling == "partial" and bool(self.design.blocks)

    def replicates(self, most: int) -> int:
        """Return how many replicates a figure draws: fewer of very many rows."""
        return max(20, min(self.draws, most, MOST_REPLICATED // max(len(self.design.y), 1)))


def same_fit(one: Any, other: Any) -> bool:
    """Return whether two fits of the same rows are by one method and of one model.

    Parameters
    ----------
    one, other : BayesFit or ClassicalFit
        The fits.
    """
    mine, yours = one.design.spec, other.design.spec
    return (
        type(one.method) is type(other.method)
        and mine.pooling == yours.pooling
        and mine.formula == yours.formula
    )


def read_fits(given: Any) -> tuple[Any, ...]:
    """Return the fits of a report, or say why they make none.

    Parameters
    ----------
    given : BayesFit, ClassicalFit or a sequence of them
        What was passed.

    Raises
    ------
    HmlmError
        If there is none, or they are of different outcomes or rows.
    """
    known = (BayesFit, ClassicalFit)
    several = not isinstance(given, known) and isinstance(given, Iterable)
    fits = tuple(given) if several and not isinstance(given, str) else (given,)
    if not fits:
        raise HmlmError("a report needs a fit: pass model.fit().")
    for fit in fits:
        if not isinstance(fit, known):
            raise HmlmError(
                f"a report is about fits, such as model.fit(), not about {type(fit).__name__}."
            )
    outcomes = list(dict.fromkeys(f.design.spec.outcome for f in fits))
    if len(outcomes) > 1:
        raise HmlmError(f"fits of different outcomes make no report: {listed(outcomes)}.")
    if len({len(f.design.y) for f in fits}) > 1:
        rows = listed(f"{f.label}: {len(f.design.y):,}" for f in fits)
        raise HmlmError(
            f"the fits use different numbers of rows ({rows}): fit them to the same complete rows."
        )
    return fits


def fit_companions(design: Design) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fit the same rows classically, under each pooling that the model and its family have.

    Parameters
    ----------
    design : Design
        The model.

    Returns
    -------
    dict of str to ClassicalFit
        By pooling: partial, complete, none.
    tuple of str
        Why others are absent, in sentences.
    """
    plain, pooling = classical_methods(design)
    if plain is None:
        why = (
            "with a formula for more than the mean"
            if design.spec.distributional
            else f"of the family {design.spec.family.name}"
        )
        return {}, (f"A model {why} has no classical fit in hmlm to stand beside it.",)
    grouped = bool(design.spec.group_terms)

    def partial() -> Any:
        return pooling.run(make_design(with_pooling(design.spec, "partial"), design.data, "drop"))

    roads: dict[str, Callable[[], Any]] = {"complete": lambda: plain_fit(design, "complete")}
    if grouped:
        roads = {"partial": partial, **roads, "none": lambda: plain_fit(design, "none")}
    found: dict[str, Any] = {}
    absent: list[str] = []
    for name, run in roads.items():
        try:
            found[name] = run()
        except UNFIT as error:
            absent.append(f"No classical fit with {POOLING_WORDS[name]}: {error}")
    return found, tuple(absent)
