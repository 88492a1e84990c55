"""Plain scales of outcome and columns, and the default priors of coefficients made of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from hmlm.cells import Cells, Moments, moments
from hmlm.design import Block, Design, Predictor
from hmlm.errors import DataError, counted
from hmlm.families import PARAMETERS
from hmlm.links import to_link
from hmlm.priors import Prior


@dataclass(frozen=True, kw_only=True, slots=True)
class Scales:
    """Plain scales of a linear predictor.

    Attributes
    ----------
    name : str
        What is predicted, for notes.
    mean : float
        Where its average lies.
    sd : float
        Its spread.
    rms : float
        Its root mean square, for slopes through the origin.
    unit : str
        The spread in words, in formulas of notes.
    """

    name: str
    mean: float
    sd: float
    rms: float
    unit: str


def outcome_scales(design: Design) -> Scales:
    """Return the scales of the mean's linear predictor, the offset taken off.

    Under an identity link those of the outcome itself. Under other links the average is the link
    of the outcome's average, and the spread is one, for a logit, probit, cloglog or log says
    ratios, which are free of units; for an inverse link it is that of the outcome through the
    derivative of the link.
    """
    family, name = design.spec.family, design.spec.outcome
    y = np.log(design.y) if family.name == "lognormal" else design.y
    offset = 0.0 if design.offset is None else design.offset
    counts, n = design.counts, design.n_rows
    if family.link == "identity":
        own = moments(y - offset, counts)
        rms = float(np.sqrt((np.square(y - offset)).mean())) if counts is None else float(own.rms)
        if design.cells is not None and design.cells.y_moments is not None:
            own, rms = design.cells.y_moments, float(design.cells.y_moments.rms)
        sd = float(own.sd)
        if not sd > 1e-12 * rms:
            raise DataError(
                f"'{name}' less the offset has the same value in all {counted(n, 'row')}: "
                "there is nothing to explain."
            )
        what = f"log({name})" if family.name == "lognormal" else name
        return Scales(name=what, mean=float(own.mean), sd=sd, rms=rms, unit=f"sd({what})")
    what = f"{family.link}({name})"
    if family.outcome in ("ordered", "category"):
        mean = 0.0
        if family.outcome == "category":
            shares = category_counts(design) + 0.5
            mean = float(np.log(shares[1] / shares[0]))
        return Scales(name=name, mean=mean, sd=1.0, rms=1.0, unit="1")
    if family.link == "log":
        average = max(float(moments(y, counts).mean), 0.1 / n)
        most = float(np.max(offset))  # taken out of the exponentials, lest they overflow
        log_offset = most + np.log(_average(np.exp(offset - most), counts))
        mean = float(np.log(average) - log_offset)
        return Scales(name=what, mean=mean, sd=1.0, rms=1.0, unit="1")
    if family.link == "inverse":
        own = moments(y, counts)
        average = float(own.mean)
        average = average if average else 1.0
        sd = float(own.sd) / average**2
        mean = 1.0 / average - _average(offset, counts)
        return Scales(name=what, mean=mean, sd=sd, rms=abs(mean) + sd, unit=f"sd({what})")
    trials = np.ones(len(y)) if design.trials is None else design.trials
    if counts is not None:
        y, trials = y * counts, trials * counts
    share = (float(y.sum()) + 0.5) / (float(trials.sum()) + 1.0)
    centre = to_link(family.link, share)
    level = float(centre - _average(offset, counts))
    return Scales(name=what, mean=level, sd=1.0, rms=1.0, unit="1")


def _average(values: np.ndarray | float, counts: np.ndarray | None) -> float:
    """Return the average over the rows of the table."""
    if counts is None or np.ndim(values) == 0:
        return float(np.mean(values))
    return float(counts @ values / counts.sum())


def category_counts(design: Design) -> np.ndarray:
    """Return how many rows of the table have each category of the outcome."""
    return np.bincount(design.y.astype(int), design.counts, len(design.categories))


def outcome_spread(design: Design) -> float:
    """Return the sd of the outcome, or of its logarithm where that is what is modelled."""
    if design.cells is not None and design.cells.sums:
        return float(np.sqrt(design.response_moments.variance))
    y = np.log(design.y) if design.spec.family.name == "lognormal" else design.y
    if design.counts is None:
        return float(y.std())
    return float(np.sqrt(moments(y, design.counts).variance))


def zero_count(design: Design) -> int:
    """Return how many rows of the table have an outcome of zero."""
    zero = design.y == 0
    return int(zero.sum() if design.counts is None else design.counts[zero].sum())


def parameter_scales(design: Design, predictor: Predictor, mean: Scales) -> Scales:
    """Return the scales of another linear predictor, of which the data say little beforehand."""
    name = predictor.name
    if name not in PARAMETERS:
        shares = category_counts(design) + 0.5
        k = design.categories.index(name.removeprefix("mu_"))
        return Scales(name=name, mean=float(np.log(shares[k] / shares[0])), sd=1, rms=1, unit="1")
    centre = 0.0
    if name == "sigma":
        centre = float(np.log(mean.sd))
    elif name == "nu":
        centre = float(np.log(10.0))
    elif name in ("zi", "hu"):
        centre = float(special.logit((zero_count(design) + 0.5) / (design.n_rows + 1.0)))
    elif name in ("alpha", "phi"):
        centre = 2.0 if name == "phi" or design.spec.family.name == "gamma" else 0.0
    return Scales(name=f"{PARAMETERS[name].link}({name})", mean=centre, sd=1.0, rms=1.0, unit="1")


class Columns:
    """Plain scales of columns, and the combination of them that is a column of ones."""

    def __init__(
        self,
        values: np.ndarray,
        names: tuple[str, ...],
        over: Moments | None = None,
        one: np.ndarray | None = None,
    ) -> None:
        self.names = names
        if over is None:
            self.mean = values.mean(axis=0)
            self.sd = values.std(axis=0, ddof=1)
            self.rms = np.sqrt((values**2).mean(axis=0))
        else:
            self.mean, self.sd, self.rms = over.mean, over.sd, over.rms
        self.ones = _ones(values, names, self.rms, np.ones(len(values)) if one is None else one)

    @classmethod
    def of_population(cls, p: Predictor, cells: Cells | None) -> Columns:
        """Return the population columns of a linear predictor."""
        return cls(p.X, p.terms, p.moments, None if cells is None else cells.ones)

    @classmethod
    def of_block(cls, block: Block) -> Columns:
        """Return the columns of a block."""
        one = None if block.cells is None else block.cells.ones
        return cls(block.Z, block.columns, block.moments, one)

    def stretch(self, known: tuple[str, ...] = ()) -> float:
        """Sum of (mean / sd)^2 over slopes: how far from zero they were observed."""
        slope = (self.ones == 0) & (self.sd > 0) & ~np.isin(self.names, known)
        return float(((self.mean[slope] / self.sd[slope]) ** 2).sum())


def _ones(
    values: np.ndarray, names: tuple[str, ...], scale: np.ndarray, one: np.ndarray
) -> np.ndarray:
    """Coefficients that make a column of ones out of the columns; zeros where there are none."""
    if "Intercept" in names:
        return np.array([float(n == "Intercept") for n in names])
    if not names or not scale.all():
        return np.zeros(len(names))
    coefficient, *_ = np.linalg.lstsq(values / scale, one, rcond=None)
    if (np.abs(values / scale @ coefficient - one) > 1e-8 * np.maximum(one, 1.0)).any():
        return np.zeros(len(names))
    return np.where(np.abs(coefficient) < 1e-8, 0.0, coefficient / scale)


def coefficient(
    x: Columns, k: int, y: Scales, held: bool, width: float, centred: bool = False
) -> tuple[Prior, str]:
    """Return the default prior of a coefficient, and what it is made of."""
    outcome, spread, name = y.name, f"2.5 {y.unit}".removesuffix(" 1"), x.names[k]
    if x.ones[k] != 0:
        unit = float(x.ones[k])
        prior = Prior("normal", mu=unit * y.mean, sigma=2.5 * y.sd * abs(unit) * width)
        if centred and not width > 1:
            what = "the predictors" if name == "Intercept" else "the other predictors"
            return prior, f"on the expected {outcome} at the average of {what}; {spread}"
        wider = f", times {width:.3g} because it is at predictors of 0" if width > 1 else ""
        return prior, f"{spread}{wider}"
    if held and x.sd[k] > 0:
        prior = Prior("normal", mu=0.0, sigma=2.5 * y.sd / float(x.sd[k]))
        return prior, f"{spread} / sd({name})"
    prior = Prior("normal", mu=0.0, sigma=2.5 * y.rms / float(x.rms[k]))
    rms = "2.5" if y.unit == "1" else f"2.5 rms({outcome})"
    return prior, f"no intercept: {rms} / rms({name})"


def group_sd(z: Columns, k: int, y: Scales) -> tuple[Prior, str]:
    """Return the default prior of the sd of a group's effects, and what it is made of."""
    if z.ones[k] != 0:
        width = float(np.sqrt(1 + z.stretch()))
        scale = y.sd * abs(float(z.ones[k])) * width
        wider = f", times {width:.3g} because it is at predictors of 0" if width > 1 else ""
        return Prior("half-student-t", nu=4.0, sigma=scale), f"{y.unit}{wider}"
    spread = float(z.sd[k] if z.sd[k] > 0 else z.rms[k])
    note = f"{y.unit} / sd({z.names[k]})"
    return Prior("half-student-t", nu=4.0, sigma=y.sd / spread), note
