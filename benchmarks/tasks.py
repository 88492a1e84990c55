"""The models that are timed, and the tables that are made for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

DATA = Path(__file__).resolve().parents[1] / "data"

# name -> data, formula in lme4's notation
MODELS = {
    "sleepstudy": ("sleepstudy", "Reaction ~ Days + (Days | Subject)"),
    "radon": ("radon", "log_radon ~ floor + log_uranium + (floor | county)"),
    "penicillin": ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
    "egsingle": ("egsingle", "math ~ year + (year | school) + (year | child)"),
    "insteval": ("insteval", "y ~ service + (1 | s) + (1 | d) + (1 | g)"),
}
# The same with a family; R writes a count out of trials, a square and a level in its own way.
FAMILIES = {
    "contraception": (
        "use ~ age + I(age**2) + urban + livch + (urban | district)",
        "bernoulli",
        "use ~ age + I(age^2) + urban + livch + (urban | district)",
    ),
    "cbpp": (
        "p(incidence, size) ~ period + (1 | herd)",
        "binomial",
        "cbind(incidence, size - incidence) ~ period + (1 | herd)",
    ),
}
POSTERIOR = ("sleepstudy", "radon", "penicillin", "egsingle")
REML = ("sleepstudy", "egsingle", "penicillin", "insteval")
GROUPS = ("Subject", "county", "plate", "sample", "school", "child", "s", "d", "g")
FACTORS = (*GROUPS, "district", "livch", "herd", "period")


def table(name: str) -> pd.DataFrame:
    """Return the table of a model, with grouping columns as text."""
    frame = insteval() if name == "insteval" else pd.read_csv(DATA / f"{name}.csv")
    return frame.assign(**{c: frame[c].astype(str) for c in frame if c in FACTORS})


def insteval(seed: int = 1) -> pd.DataFrame:
    """Simulate a table of the size of lme4's InstEval: ratings of lecturers by students."""
    rng = np.random.default_rng(seed)
    n, students, lecturers = 73_421, 2_972, 1_128
    s, weight = rng.integers(0, students, n), rng.gamma(1.0, 1.0, lecturers)
    d = rng.choice(lecturers, n, p=weight / weight.sum())
    s[:students], d[:lecturers] = np.arange(students), np.arange(lecturers)
    service = rng.integers(0, 2, n)
    g = rng.integers(0, 14, lecturers)[d] * 2 + service
    y = 3.3 - 0.07 * service + rng.normal(0, 1.18, n)
    y += rng.normal(0, 0.33, students)[s] + rng.normal(0, 0.52, lecturers)[d]
    y += rng.normal(0, 0.08, 28)[g]
    return pd.DataFrame({"y": y, "s": s, "d": d, "g": g, "service": service})


def waves(groups: int, seed: int = 0) -> pd.DataFrame:
    """Simulate ten waves of many groups, a tenth of them missing."""
    rng = np.random.default_rng(seed)
    g, wave = np.nonzero(rng.random((groups, 10)) > 0.1)
    b0 = rng.normal(0, 1, groups)
    b1 = 0.06 * b0 + rng.normal(0, 0.2, groups)
    y = 2 + 0.5 * wave + b0[g] + b1[g] * wave + rng.normal(0, 1.5, len(g))
    return pd.DataFrame({"y": y, "wave": wave, "g": g})


def continuous(groups: int, rows: int, seed: int = 0) -> pd.DataFrame:
    """Simulate groups with a continuous slope, so that every group's design differs."""
    rng = np.random.default_rng(seed)
    g = rng.integers(0, groups, rows)
    g[:groups] = np.arange(groups)
    x = rng.normal(size=rows)
    b0, b1 = rng.normal(0, 1, groups), rng.normal(0, 0.4, groups)
    y = 1 + 0.5 * x + b0[g] + b1[g] * x + rng.normal(0, 1.5, rows)
    return pd.DataFrame({"y": y, "x": x, "g": g})


def counts(groups: int, rows: int, seed: int = 0) -> pd.DataFrame:
    """Simulate Poisson counts with two categorical predictors."""
    rng = np.random.default_rng(seed)
    g = rng.integers(0, groups, rows)
    a, b = rng.choice(list("xyz"), rows), rng.choice(["m", "f"], rows)
    eta = 0.3 + 0.4 * (a == "y") - 0.2 * (a == "z") + 0.25 * (b == "m")
    eta += 0.5 * rng.normal(size=groups)[g]
    return pd.DataFrame({"count": rng.poisson(np.exp(eta)), "a": a, "b": b, "g": g})
