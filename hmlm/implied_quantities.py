"""What priors imply, quantity by quantity, as draws with the words that say them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from hmlm.blocks import Block, Predictor
from hmlm.design import Design
from hmlm.estimates import term_label
from hmlm.expectation import category_probabilities, expected_outcome
from hmlm.families import PARAMETERS
from hmlm.prediction import family_values
from hmlm.variance_parts import residual_variance, share_of

Draws = Mapping[str, np.ndarray]
_NORMAL_90 = float(special.ndtri(0.9))
# What exp() of a difference of the linear predictor is a ratio of.
_RATIOS = {"logit": "odds", "cloglog": "hazard"}


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Implied:
    """Draws of one implied quantity, with the words that say it.

    Attributes
    ----------
    quantity, group, term : str
        What it is, of which grouping factor and which effects.
    values : ndarray, shape (draws,)
        Its draws; blank ones are left out.
    words : str
        A sentence with a place for the ``{median}``.
    form : str
        How a number is written: ``.2f``, or empty for three significant digits.
    """

    quantity: str
    values: np.ndarray
    words: str
    group: str = ""
    term: str = ""
    form: str = ""


def write_number(value: float, form: str) -> str:
    """Write a number in a form, or with three significant digits."""
    if form or not np.isfinite(value):
        text = f"{value:{form}}"
        return text.removeprefix("-") if not text.strip("-0.") else text
    if 1000 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _covariance(drawn: Draws, p: Predictor, block: Block) -> np.ndarray:
    """Return D of every draw, shape (draws, q, q)."""
    sd = drawn[p.named(f"sd_{block.group}")]
    cor = drawn.get(p.named(f"cor_{block.group}"), np.eye(sd.shape[-1]))
    return np.asarray(sd[:, :, None] * cor * sd[:, None, :])


def variance_shares(design: Design, small: Design, drawn: Draws, draws: int) -> Iterator[Implied]:
    """Yield the ICC of every grouping factor; `small` has the rows that means are taken over."""
    if design.spec.pooling != "partial" or not design.blocks:
        return
    categorical = design.spec.family.outcome == "category"
    residual = residual_variance(small, drawn, draws)
    residual = np.where(residual >= 0, residual, np.nan)  # blank where the mean is impossible
    for p in design.predictors if categorical else design.predictors[:1]:
        parts = {}
        for b in p.blocks:
            parts[b.group] = np.einsum(
                "skl,kl->s", _covariance(drawn, p, b), b.Z.T @ b.Z / len(b.Z)
            )
        total = residual + sum(parts.values())
        label = p.name or f"mu_{design.categories[1]}" if categorical else ""
        of = f" in {label}" if label else ""
        for group, part in parts.items():
            yield Implied(
                quantity="ICC",
                group=group,
                term=label,
                values=np.where(
                    np.isinf(total), np.where(np.isinf(part), np.nan, 0.0), share_of(part, total)
                ),
                words=f"Groups of '{group}' hold {{median}} of the variance{of} that predictors "
                "leave",
                form=".2f",
            )


def group_contrasts(design: Design, drawn: Draws) -> Iterator[Implied]:
    """Yield how far apart two groups are, at the average of the predictors."""
    if design.spec.pooling != "partial":
        return
    family = design.spec.family
    for p in design.predictors:
        other = PARAMETERS.get(p.name)
        link = other.link if other else family.link
        what, ratio = _unit(design, p, link)
        for b in p.blocks:
            mean = b.Z.mean(axis=0)
            tau = np.sqrt(np.einsum("k,skl,l->s", mean, _covariance(drawn, p, b), mean))
            steps = {
                "median": float(np.sqrt(2.0) * special.ndtri(0.75)) * tau,
                "tails": 2.0 * _NORMAL_90 * tau,
            }
            kind = "ratio" if ratio else "difference"
            names = {
                "median": f"median {kind}",
                "tails": f"90th to 10th percentile {kind}",
            }
            words = {
                "median": f"Of two groups of '{b.group}' drawn at random, the higher has "
                + (
                    f"{{median}} times the {what} of the lower"
                    if ratio
                    else f"{{median}} more {what} than the lower"
                )
                + ", in the median",
                "tails": f"Of the groups of '{b.group}', the one at the 90th percentile has "
                + (
                    f"{{median}} times the {what} of the one at the 10th"
                    if ratio
                    else f"{{median}} more {what} than the one at the 10th"
                ),
            }
            label = term_label(design, p.name, "").removesuffix("_")
            for key, step in steps.items():
                yield Implied(
                    quantity=names[key],
                    group=b.group,
                    term=label,
                    values=np.exp(step) if ratio else step,
                    words=words[key],
                )


def _unit(design: Design, p: Predictor, link: str) -> tuple[str, bool]:
    """Return what groups differ in, and whether as a ratio."""
    family, y = design.spec.family, design.spec.outcome
    if p.name in PARAMETERS:
        return (f"odds of {p.name}" if link == "logit" else p.name), True
    if family.outcome == "category":
        label = p.name.removeprefix("mu_") or design.categories[1]
        return f"odds of '{label}' against '{design.categories[0]}'", True
    if family.name == "lognormal":
        return y, True
    if link in _RATIOS:
        if family.outcome == "unit":
            return f"{_RATIOS[link]} of {y}", True
        if family.outcome == "ordered":
            # Under a cloglog link the hazard is that of stopping at a category or below.
            which = "higher" if link == "logit" else "lower"
            return f"{_RATIOS[link]} of a {which} category", True
        return f"{_RATIOS[link]} of a success", True
    if link == "log":
        return ("rate" if family.outcome == "count" else f"expected {y}"), True
    return (y if link == "identity" else f"on the {link} scale"), False


def effect_correlations(design: Design, drawn: Draws) -> Iterator[Implied]:
    """Yield the correlations of effects."""
    for p in design.predictors:
        for b in p.blocks:
            name = p.named(f"cor_{b.group}")
            if name not in drawn:
                continue
            for part in b.slices:
                for i in range(part.start, part.stop):
                    for j in range(i + 1, part.stop):
                        pair = [term_label(design, p.name, b.columns[k]) for k in (i, j)]
                        yield Implied(
                            quantity="correlation",
                            group=b.group,
                            term=", ".join(pair),
                            values=drawn[name][:, i, j],
                            words=f"Between groups of '{b.group}', {pair[0]} and {pair[1]} have a "
                            "correlation of {median}",
                            form=".2f",
                        )


def typical_outcomes(design: Design, drawn: Draws) -> Iterator[Implied]:
    """Yield the expected outcome at the average of the predictors, in a typical group."""
    family, outcome = design.spec.family, design.spec.outcome
    n_draws = len(next(iter(drawn.values())))
    own = design.spec.pooling == "none" and any(p.blocks for p in design.predictors)
    etas = []
    for p in design.predictors:
        eta = np.full(n_draws, 0.0 if p.offset is None else float(p.offset.mean()))
        if p.terms:
            eta = eta + drawn[p.named("beta")] @ p.X.mean(axis=0)
        for b in p.blocks if own else ():
            eta = eta + drawn[p.named(f"b_{b.group}")][:, 0] @ b.Z.mean(axis=0)
        etas.append(eta[:, None])
    where = "At the average of the predictors, in "
    where += "one group of its own" if own else "a typical group"
    where = where if design.blocks else where.partition(",")[0]
    if family.outcome in ("ordered", "category"):
        cuts = drawn["cutpoints"][:, None] if family.outcome == "ordered" else None
        p_of = category_probabilities(family, etas, cuts)[:, 0]
        for k, label in enumerate(design.categories):
            yield Implied(
                quantity="probability",
                term=str(label),
                values=p_of[:, k],
                words=f"{where}, '{label}' has probability {{median}}",
                form=".2f",
            )
        return
    mu = expected_outcome(family, etas[0], family_values(design, drawn, etas))[:, 0]
    if family.outcome in ("binary", "trials"):
        label = str(design.categories[1]) if design.categories else "a success"
        yield Implied(
            quantity="probability",
            term=label,
            values=mu,
            words=f"{where}, {label} has probability {{median}}",
            form=".2f",
        )
        return
    yield Implied(
        quantity="expected outcome",
        term=outcome,
        values=mu,
        words=f"{where}, the expected {outcome} is {{median}}",
    )


def outcomes_outside(design: Design, y: np.ndarray) -> Iterator[Implied]:
    """Yield how much of the prior predictive distribution lies where no outcome was."""
    family = design.spec.family
    if family.outcome in ("binary", "trials", "ordered", "category"):
        return
    low, high = float(design.y.min()), float(design.y.max())
    known = ~np.isnan(y)
    count = known.sum(axis=1)

    def share(where: np.ndarray) -> np.ndarray:
        return share_of((where & known).sum(axis=1), np.where(count, count, np.nan))

    outside = share((y < low) | (y > high))
    average = float(np.nanmean(outside)) if count.any() else np.nan
    ends = f"{write_number(low, '')} to {write_number(high, '')}"
    yield Implied(
        quantity="outside the observed range",
        term=design.spec.outcome,
        values=outside,
        words=f"A new {design.spec.outcome} is outside the observed range, {ends}, with "
        f"probability {average:.2f}; over draws of the parameters {{median}}",
        form=".2f",
    )
    if family.outcome == "real" and low > 0:
        below = share(y < 0)
        yield Implied(
            quantity="below zero",
            term=design.spec.outcome,
            values=below,
            words=f"A new {design.spec.outcome} is below zero, where no observed one is, with "
            f"probability {float(np.nanmean(below)):.2f}; over draws of the parameters {{median}}",
            form=".2f",
        )
    if not known.all():
        yield Implied(
            quantity="impossible mean",
            term=design.spec.outcome,
            values=1.0 - count / y.shape[1],
            words=f"The expected {design.spec.outcome} is negative, which the family cannot have, "
            f"with probability {1 - float(known.mean()):.2f}; over draws of the parameters "
            "{median}",
            form=".2f",
        )
