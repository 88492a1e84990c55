"""What several test files need: designs from formulas, R's recorded numbers, dense likelihoods."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from hmlm.data import make_grouped_data
from hmlm.datasets import load_dataset
from hmlm.design import Design, make_design
from hmlm.fitting.maximum_likelihood import ML, REML
from hmlm.formula import parse_formula
from hmlm.spec import with_pooling

REFERENCE = Path(__file__).parent / "reference"

# The fits that R recorded: name of the record -> data set, formula, method.
RECORDED = {
    "alcohol_reml": ("alcohol", "alcuse ~ coa + peer + time + (time | id)", REML()),
    "alcohol_lmertest": ("alcohol", "alcuse ~ coa + peer + time + (time | id)", REML()),
    "alcohol_ml": ("alcohol", "alcuse ~ coa + peer + time + (time | id)", ML(std_errors="nlme")),
    "sleepstudy_reml": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", REML()),
    "sleepstudy_ml": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", ML()),
    "sleepstudy_uncorrelated_reml": ("sleepstudy", "Reaction ~ Days + (Days || Subject)", REML()),
    "dyestuff_reml": ("dyestuff", "Yield ~ 1 + (1 | Batch)", REML()),
    "dyestuff2_reml": ("dyestuff2", "Yield ~ 1 + (1 | Batch)", REML()),
    "radon_reml": ("radon", "log_radon ~ floor + log_uranium + (floor | county)", REML()),
    "pastes_reml": ("pastes", "strength ~ 1 + (1 | batch/cask)", REML()),
    "penicillin_reml": ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", REML()),
}


def make(formula, frame, pooling="partial", weights=None, collinear="error") -> Design:
    """Make a design from a formula and a table, as `hmlm.Model` does."""
    spec = with_pooling(parse_formula(formula, weights=weights), pooling)
    columns = [*spec.columns, *([weights] if weights else [])]
    outcome = [spec.outcome] if spec.outcome in spec.columns else []
    data = make_grouped_data(frame, columns, spec.groups, outcome)
    return make_design(spec, data, collinear)


def recorded(name):
    """Return numbers recorded from R, or computed exactly, by the name of their file."""
    return json.loads((REFERENCE / f"{name}.json").read_text(encoding="utf-8"))


@cache
def recorded_fit(name):
    """Fit a model that R has fitted."""
    data, formula, method = RECORDED[name]
    return method.run(make(formula, load_dataset(data)))


def our_term(name):
    """Return hmlm's name for one of R's terms."""
    return "Intercept" if name == "(Intercept)" else name


def recorded_fixed(record):
    """Return R's fixed effects: term, estimate and std_error, indexed by our names of terms."""
    fixed = record["fixed"]
    lme4 = "Estimate" in fixed
    return pd.DataFrame(
        {
            "estimate": fixed["Estimate" if lme4 else "Value"],
            "std_error": fixed["Std. Error" if lme4 else "Std.Error"],
        },
        index=[our_term(t) for t in fixed["term"]],
    )


def recorded_spread(record):
    """Return lme4's sds and correlations, {(group, term): sd} and {(group, term, term): r}."""
    table = record["variance_components"]
    sds, correlations = {}, {}
    rows = zip(*(table[c] for c in ("grp", "var1", "var2", "sdcor")), strict=True)
    for group, first, second, value in rows:
        name = our_group(group)
        if first is not None and second is None:
            sds[name, our_term(first)] = value
        elif second is not None:
            correlations[name, our_term(first), our_term(second)] = value
    return sds, correlations


def our_group(name):
    """Return hmlm's name for one of lme4's groups: 'cask:batch' is our 'batch:cask'."""
    name = name.removesuffix(".1")
    return ":".join(reversed(name.split(":")))


def recorded_modes(record, group):
    """Return R's conditional modes of one factor, indexed by our labels of the levels."""
    modes = record["conditional_modes"]
    table = modes if "level" in modes else modes[next(g for g in modes if our_group(g) == group)]
    levels = [":".join(reversed(str(level).split(":"))) for level in table["level"]]
    terms = [t for t in table if t not in ("level", "_row")]
    return pd.DataFrame({our_term(t): table[t] for t in terms}, index=levels)


def our_modes(fit, group):
    """Return a fit's conditional modes, indexed by the labels of the levels."""
    block = next(b for b in fit.design.blocks if b.group == group)
    return pd.DataFrame(
        fit.estimates[f"b_{group}"],
        index=[str(level) for level in block.levels],
        columns=list(block.columns),
    )


def effect_covariance(estimates, group):
    """Return D, the covariance matrix of a group's effects."""
    sd = np.asarray(estimates[f"sd_{group}"])
    correlation = estimates.get(f"cor_{group}", np.eye(len(sd)))
    return np.outer(sd, sd) * np.nan_to_num(correlation)


def outcome_covariance(design, estimates):
    """Return the N x N covariance matrix of the outcome, built entry by entry."""
    weights = np.ones(len(design.y)) if design.weights is None else design.weights
    V = np.diag(float(estimates["sigma"]) ** 2 / weights)
    for block in design.blocks:
        same = block.index[:, None] == block.index[None, :]
        V += same * (block.Z @ effect_covariance(estimates, block.group) @ block.Z.T)
    return V


def dense_log_likelihood(design, estimates, reml=False):
    """Return the log-likelihood from the N x N normal density: no shortcut at all.

    Under ML at the given beta; under REML restricted, with beta integrated out.
    """
    X, y = design.X, design.response
    n, p = X.shape
    V = outcome_covariance(design, estimates)
    inverse = np.linalg.inv(V)
    log_det = np.linalg.slogdet(V)[1]
    beta = np.asarray(estimates.get("beta", np.empty(0)))
    extra, free = 0.0, n
    if reml:
        information = X.T @ inverse @ X
        beta = np.linalg.solve(information, X.T @ inverse @ y)
        extra, free = np.linalg.slogdet(information)[1], n - p
    r = y - X @ beta
    return -0.5 * (free * np.log(2 * np.pi) + log_det + extra + r @ inverse @ r)


def central_difference(function, at, step=1e-5):
    """Return the gradient of a function by central differences."""
    gradient = np.empty(len(at))
    for k in range(len(at)):
        up, down = at.copy(), at.copy()
        up[k] += step
        down[k] -= step
        gradient[k] = (function(up) - function(down)) / (2 * step)
    return gradient


def simulate(seed, groups=40, size=6, beta=(2.0, -0.7), sd=(0.8, 0.5), cor=0.4, sigma=0.6):
    """Draw a table ``y, x, g`` from a model with correlated intercepts and slopes."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), size)
    x = rng.normal(size=groups * size)
    half = np.linalg.cholesky([[1.0, cor], [cor, 1.0]])
    b = rng.normal(size=(groups, 2)) @ half.T * np.array(sd)
    y = beta[0] + b[g, 0] + (beta[1] + b[g, 1]) * x + sigma * rng.normal(size=len(g))
    return pd.DataFrame({"y": y, "x": x, "g": [f"g{i:03d}" for i in g]}), b
