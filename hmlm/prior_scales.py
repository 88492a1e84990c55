"""Plain scales of outcome and columns, and the default priors of coefficients made of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from hmlm.design import Design, Predictor
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
    if family.link == "identity":
        y = y - offset
        sd, rms = float(y.std(ddof=1)), float(np.sqrt((y**2).mean()))
        if not sd > 1e-12 * rms:
            raise DataError(
                f"'{name}' less the offset has the same value in all {counted(len(y), 'row')}: "
                "there is nothing to explain."
            )
        what = f"log({name})" if family.name == "lognormal" else name
        return Scales(name=what, mean=float(y.mean()), sd=sd, rms=rms, unit=f"sd({what})")
    what = f"{family.link}({name})"
    if family.outcome in ("ordered", "category"):
        mean = 0.0
        if family.outcome == "category":
            shares = np.bincount(design.y.astype(int), minlength=len(design.categories)) + 0.5
            mean = float(np.log(shares[1] / shares[0]))
        return Scales(name=name, mean=mean, sd=1.0, rms=1.0, unit="1")
    if family.link == "log":
        average = max(float(y.mean()), 0.1 / len(y))
        mean = float(np.log(average) - np.log(np.mean(np.exp(offset))))
        return Scales(name=what, mean=mean, sd=1.0, rms=1.0, unit="1")
    if family.link == "inverse":
        average = float(y.mean())
        average = average if average else 1.0
        sd = float(y.std(ddof=1)) / average**2
        mean = 1.0 / average - float(np.mean(offset))
        return Scales(name=what, mean=mean, sd=sd, rms=abs(mean) + sd, unit=f"sd({what})")
    trials = np.ones(len(y)) if design.trials is None else design.trials
    share = (float(y.sum()) + 0.5) / (float(trials.sum()) + 1.0)
    centre = to_link(family.link, share)
    return Scales(name=what, mean=float(centre - np.mean(offset)), sd=1.0, rms=1.0, unit="1")


def parameter_scales(design: Design, predictor: Predictor, mean: Scales) -> Scales:
    """Return the scales of another linear predictor, of which the data say little beforehand."""
    name = predictor.name
    if name not in PARAMETERS:
        shares = np.bincount(design.y.astype(int), minlength=len(design.categories)) + 0.5
        k = design.categories.index(name.removeprefix("mu_"))
        return Scales(name=name, mean=float(np.log(shares[k] / shares[0])), sd=1, rms=1, unit="1")
    centre = 0.0
    if name == "sigma":
        centre = float(np.log(mean.sd))
    elif name == "nu":
        centre = float(np.log(10.0))
    elif name in ("zi", "hu"):
        centre = float(special.logit(((design.y == 0).sum() + 0.5) / (len(design.y) + 1.0)))
    elif name in ("alpha", "phi"):
        centre = 2.0 if name == "phi" or design.spec.family.name == "gamma" else 0.0
    return Scales(name=f"{PARAMETERS[name].link}({name})", mean=centre, sd=1.0, rms=1.0, unit="1")


class Columns:
    """Plain scales of columns, and the combination of them that is a column of ones."""

    def __init__(self, values: np.ndarray, names: tuple[str, ...]) -> None:
        self.names = names
        self.mean = values.mean(axis=0)
        self.sd = values.std(axis=0, ddof=1)
        self.rms = np.sqrt((values**2).mean(axis=0))
        self.ones = _ones(values, names, self.rms)

    def stretch(self, known: tuple[str, ...] = ()) -> float:
        """Sum of (mean / sd)^2 over slopes: how far from zero they were observed."""
        slope = (self.ones == 0) & (self.sd > 0) & ~np.isin(self.names, known)
        return float(((self.mean[slope] / self.sd[slope]) ** 2).sum())


def _ones(values: np.ndarray, names: tuple[str, ...], scale: np.ndarray) -> np.ndarray:
    """Coefficients that make a column of ones out of the columns; zeros where there are none."""
    if "Intercept" in names:
        return np.array([float(n == "Intercept") for n in names])
    if not names or not scale.all():
        return np.zeros(len(names))
    coefficient, *_ = np.linalg.lstsq(values / scale, np.ones(len(values)), rcond=None)
    if np.abs(values / scale @ coefficient - 1).max() > 1e-8:
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
