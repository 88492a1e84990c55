"""What to do about a misfit, in a sentence that names hmlm's own remedy."""

from __future__ import annotations

from collections.abc import Collection

from hmlm.check_statistics import Discrepancy
from hmlm.design import Design
from hmlm.errors import listed

_OVERDISPERSED = {
    "poisson": "negative-binomial",
    "zero-inflated-poisson": "zero-inflated-negative-binomial",
    "hurdle-poisson": "hurdle-negative-binomial",
    "binomial": "beta-binomial",
}
_MORE_ZEROS = {
    "poisson": "zero-inflated-poisson",
    "negative-binomial": "zero-inflated-negative-binomial",
    "zero-inflated-poisson": "zero-inflated-negative-binomial",
}
Also = frozenset[tuple[str, bool]]  # names of checks that are not fine, and whether data lie above
_BENT = ("**", "poly(", "bs(", "cr(", "cc(")


def advise(d: Discrepancy, design: Design, others: Collection[Discrepancy] = ()) -> str:
    """Return the next step after a check that is not fine.

    Parameters
    ----------
    d : Discrepancy
        The check.
    design : Design
        What was fitted.
    others : collection of Discrepancy
        All checks that are not fine: they tell causes apart that one check cannot.

    Returns
    -------
    str
        A sentence or two.
    """
    also = frozenset((o.name, o.high) for o in others)
    if d.name.startswith("share of "):
        return _shares(d, design, also)
    return {
        "mean": _mean,
        "sd": _sd,
        "minimum": _extremes,
        "maximum": _extremes,
        "dispersion": _dispersion,
        "skewness of residuals": _skewness,
        "tails of residuals": _tails,
        "spread against fitted": _spread_against_fitted,
        "spread of group sds": _group_sds,
        "linearity": _linearity,
        "order within groups": _order,
        "calibration error": _calibration,
        "bars of the rootogram": _rootogram,
        "sd of group means": _group_means,
        "largest group effect": _outlying,
        "shape of group effects": _shape,
    }[d.name](d, design, also)


def _mean(d: Discrepancy, design: Design, also: Also) -> str:
    return (
        f"Replicates are {'lower' if d.high else 'higher'} than the data on average: look for a "
        "prior that pulls (fit.priors.table()), an offset, or the link."
    )


def _sd(d: Discrepancy, design: Design, also: Also) -> str:
    if design.spec.family.outcome in ("count", "trials"):
        return _dispersion(d, design, also)
    return (
        f"The data vary {'more' if d.high else 'less'} than replicates: look at the prior of "
        "sigma, and at the tails and the spread of the residuals below."
    )


def _extremes(d: Discrepancy, design: Design, also: Also) -> str:
    family = design.spec.family
    beyond = d.high == (d.name == "maximum")  # the data reach further out than replicates
    if family.outcome == "count":
        return (_dispersion if d.name == "maximum" else _shares)(d, design, also)
    if not beyond and family.name in ("gaussian", "student-t") and (design.y > 0).all():
        return (
            f"Replicates go beyond the {d.name} of the data, whose values are all positive: "
            "family='lognormal' or family='gamma' keep to positive values."
        )
    if not beyond:
        return (
            f"Replicates go beyond the {d.name} of the data: look for a bound of the outcome, or "
            "for values that were cut off."
        )
    if family.name == "gaussian" and not design.known_se:
        return (
            f"The {d.name} lies further out than replicates reach: check that row; "
            "family='student-t' gives outliers less weight."
        )
    return f"The {d.name} lies further out than replicates reach: check that row."


def _dispersion(d: Discrepancy, design: Design, also: Also) -> str:
    name = design.spec.family.name
    if not d.high:
        return (
            f"The data vary less than a {name} model allows: look for rows that repeat each "
            "other, a bound of the counts, or too many group effects."
        )
    if _only_zeros(also) and name in _MORE_ZEROS:
        return (
            "The data vary more than the model allows, by zeros with too few ones beside them: "
            f"family='{_MORE_ZEROS[name]}'."
        )
    if name in _OVERDISPERSED:
        return (
            f"The data vary more than a {name} model allows (overdispersion): "
            f"family='{_OVERDISPERSED[name]}', or a group effect of each row, as (1 | row_id)."
        )
    parameter = design.spec.family.parameters[0] if design.spec.family.parameters else ""
    more = f', or let {parameter} vary, as "...; {parameter} ~ x"' if parameter else ""
    return f"The data vary more than the model allows: add predictors or group effects{more}."


def _only_zeros(also: Also) -> bool:
    """Whether zeros stand apart from the other counts: too many of them, and too few ones."""
    zeros_alone = {("share of zeros", True), ("share of ones", False)} <= also
    # Counts that are too large as well are spread out as a whole, and zeros are a part of that.
    return zeros_alone and ("maximum", True) not in also


def _shares(d: Discrepancy, design: Design, also: Also) -> str:
    family = design.spec.family
    much = "more" if d.high else "fewer"
    label = d.name.removeprefix("share of ")
    if family.outcome in ("ordered", "category"):
        step = (
            "family='categorical' does not assume an order; else add predictors"
            if family.outcome == "ordered"
            else "add predictors or group effects"
        )
        return f"The data have {much} of '{label}' than replicates: {step}."
    if family.outcome == "binary" or (design.trials is not None and design.trials.max() <= 1):
        return (
            f"The data have {much} successes than replicates: look for a prior that pulls, or try "
            "another link (link='cloglog')."
        )
    if family.outcome == "trials":
        known = "family='beta-binomial'" if family.name == "binomial" else "a formula of phi"
        return f"The data have {much} rows of {label} than replicates (overdispersion): {known}."
    if label == "zeros" or d.name == "minimum":
        return _zeros(d, design, also)
    steps = _MORE_ZEROS if _only_zeros(also) else _OVERDISPERSED
    step = f"family='{steps[family.name]}'" if family.name in steps else ""
    return (
        f"The data have {much} ones than replicates: see the bars of hmlm.plot_rootogram(fit)"
        f"{f', and try {step}' if step else ''}."
    )


def _zeros(d: Discrepancy, design: Design, also: Also) -> str:
    name = design.spec.family.name
    if not d.high:
        rest = "negative-binomial" if "negative" in name else "poisson"
        return f"The data have fewer zeros than replicates: family='hurdle-{rest}' sets them apart."
    if name in _MORE_ZEROS:
        inflated = _MORE_ZEROS[name]
        apart = f"family='{inflated}' or family='{inflated.replace('zero-inflated', 'hurdle')}'"
        if name == "poisson" and not _only_zeros(also):
            return (
                "The data have more zeros than replicates, and no fewer ones: "
                f"family='negative-binomial', or {apart} where zeros have a cause of their own."
            )
        return f"The data have more zeros than replicates: {apart}."
    parameter = "hu" if name.startswith("hurdle") else "zi"
    return (
        f"The data have more zeros than replicates: let {parameter} vary, as "
        f'"...; {parameter} ~ x".'
    )


def _skewness(d: Discrepancy, design: Design, also: Also) -> str:
    way = "right" if d.high else "left"
    name = design.spec.family.name
    if name in ("gaussian", "student-t") and d.high and (design.y > 0).all():
        step = "family='lognormal' or family='gamma', as all values are positive"
    elif name == "gamma":
        step = "compare with family='lognormal'"
    elif name == "lognormal":
        step = "compare with family='gamma'"
    else:
        step = "transform the outcome, or look for a predictor that is missing"
    return f"Residuals are skewed to the {way}: {step}."


def _tails(d: Discrepancy, design: Design, also: Also) -> str:
    name = design.spec.family.name
    if not d.high:
        return (
            "Residuals have lighter tails than the model: look for a bound of the outcome, or for "
            "two kinds of rows that a predictor would tell apart."
        )
    if name == "gaussian" and not design.known_se:
        first = "Residuals have heavier tails than normal: "
        if ("skewness of residuals", True) in also and (design.y > 0).all():
            return f"{first}family='lognormal' or family='gamma', as they are skewed as well."
        if ("spread of group sds", True) in also:
            return f"{first}let the groups differ in sigma first, then family='student-t'."
        return f"{first}family='student-t'."
    if name == "student-t":
        return "Residuals have still heavier tails: check the rows with the largest residuals."
    return (
        "Residuals have heavier tails than the model: check the rows with the largest residuals "
        "(hmlm.plot_residuals(fit)), or let the scale vary."
    )


def _scale(design: Design) -> str:
    """Name the parameter that says how much outcomes vary around their mean."""
    found = [p for p in design.spec.family.parameters if p in ("sigma", "alpha", "phi")]
    return "" if design.known_se or not found else found[0]


def _spread_against_fitted(d: Discrepancy, design: Design, also: Also) -> str:
    way = "more" if d.high else "less"
    scale, positive = _scale(design), (design.y > 0).all()
    first = f"Rows with larger fitted values vary {way} than the model says: "
    if not scale:
        return f"{first}check the known standard errors."
    varying = f'let {scale} vary, as "...; {scale} ~ x"'
    if design.spec.family.name == "gaussian" and d.high and positive:
        return f"{first}{varying}, or take family='lognormal' or family='gamma'."
    return f"{first}{varying}."


def _group_sds(d: Discrepancy, design: Design, also: Also) -> str:
    scale = _scale(design)
    own = next((p for p in design.distributional if p.name == scale), None)
    what = "residual sd" if scale == "sigma" else scale or "spread"
    first = f"Groups of '{d.group}' differ in their {what}: "
    if not scale:
        return f"{first}check the known standard errors."
    if own is not None and any(b.group == d.group for b in own.blocks):
        return f"{first}more than '{scale}' lets them: look at its prior and for outlying rows."
    return (
        f'{first}let it vary, as "...; {scale} ~ 1 + (1 | {d.group})"; a few outlying rows do the '
        "same (family='student-t')."
        if design.spec.family.name == "gaussian"
        else f'{first}let it vary, as "...; {scale} ~ 1 + (1 | {d.group})".'
    )


def _linearity(d: Discrepancy, design: Design, also: Also) -> str:
    x = d.term
    what = f"The effects of '{d.group}'" if d.group else "Residuals"
    bent = any(x in t and any(b in t for b in _BENT) for t in (design.spec.terms, *design.terms))
    step = f"a spline, as bs({x}, df=4)" if bent else f"I({x}**2), or a spline as bs({x}, df=4)"
    way = "upwards" if d.high else "downwards"
    return f"{what} bend {way} along '{x}': add {step}."


def _order(d: Discrepancy, design: Design, also: Also) -> str:
    group = d.group
    first = f"Residuals of rows that follow each other in '{group}' are "
    if not d.high:
        return (
            f"{first}unlike each other: if the order of rows is that of time, look for a swing "
            "between two states; else nothing follows."
        )
    if design.spec.pooling == "complete":
        return f'{first}alike: the groups differ, and with_pooling("partial") lets them.'
    block = next((b for b in design.blocks if b.group == group), None)
    slope = block is not None and len(block.columns) > 1
    grows = "a curve of time" if slope else f"a slope of time, as (time | {group}), or a curve"
    return (
        f"{first}alike: if the order of rows is that of time, add {grows}; if rows are sorted by "
        "the outcome, nothing follows."
    )


def _calibration(d: Discrepancy, design: Design, also: Also) -> str:
    return (
        "Shares of successes are not what the probabilities say: see hmlm.plot_calibration(fit); "
        "add I(x**2) or an interaction, or try another link (link='probit', link='cloglog')."
    )


def _rootogram(d: Discrepancy, design: Design, also: Also) -> str:
    name = design.spec.family.name
    steps = (_MORE_ZEROS,) if _only_zeros(also) else (_OVERDISPERSED, _MORE_ZEROS)
    options = [step[name] for step in steps if name in step]
    step = (
        " or ".join(f"family='{o}'" for o in dict.fromkeys(options))
        if options
        else "add predictors or group effects"
    )
    return f"The data have {listed(d.names)}: {step}; see hmlm.plot_rootogram(fit)."


def _group_means(d: Discrepancy, design: Design, also: Also) -> str:
    if design.spec.pooling == "complete":
        way = "more" if d.high else "less"
        return (
            f"Groups of '{d.group}' differ {way} than chance makes them: let them, with "
            '.with_pooling("partial").'
            if d.high
            else f"Groups of '{d.group}' differ {way} than chance makes them: look at how rows "
            "were chosen."
        )
    way = "closer together" if not d.high else "further apart"
    return (
        f"The groups of '{d.group}' lie {way} than new groups would: look at the prior of "
        f"sd_{d.group}, and for a predictor that differs between groups."
    )


def _outlying(d: Discrepancy, design: Design, also: Also) -> str:
    names = " and ".join(f"'{n}'" for n in d.names)
    levels = ", ".join(repr(n) for n in d.names)
    return (
        f"Some group lies further out than a normal distribution of groups allows; the most "
        f"extreme of '{d.group}' are {names}: see hmlm.plot_groups(fit, levels=[{levels}]), check "
        "their rows, and add a predictor that sets them apart or fit without them to compare."
    )


def _shape(d: Discrepancy, design: Design, also: Also) -> str:
    names = " and ".join(f"'{n}'" for n in d.names)
    return (
        f"The effects of '{d.group}' are not normal (the most extreme: {names}): look for kinds of "
        "groups that a predictor would tell apart, or for outlying groups."
    )
