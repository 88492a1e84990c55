"""Kenward and Roger's adjustment against pbkrtest and against N x N matrices."""

import numpy as np
import pandas as pd
import pytest
from support import make, outcome_covariance, recorded, simulate

from hmlm.datasets import load_dataset
from hmlm.errors import HmlmError
from hmlm.fitting import kenward_roger as module
from hmlm.fitting.maximum_likelihood import ML, REML

FORMULAS = {
    "alcohol": "alcuse ~ coa + peer + time + (time | id)",
    "sleepstudy": "Reaction ~ Days + (Days | Subject)",
}


@pytest.mark.parametrize("data", FORMULAS)
def test_as_pbkrtest_has_it(data):
    record = recorded("kenward_roger")[data]
    fit = REML(df="kenward-roger").run(make(FORMULAS[data], load_dataset(data)))
    numbers = fit.describe("beta", 0.95)
    np.testing.assert_allclose(numbers.std_error, record["Std. Error"], rtol=1e-4)
    np.testing.assert_allclose(numbers.df, record["df"], rtol=1e-4)
    np.testing.assert_allclose(numbers.statistic, record["t value"], rtol=1e-4)
    np.testing.assert_allclose(numbers.p_value, record["Pr(>|t|)"], rtol=1e-3)
    assert "Kenward and Roger" in fit.status.notes[0]


def by_hand(fit):
    """Kenward and Roger 1997, sections 2 and 3, with every N x N matrix written out."""
    design = fit.design
    weights = np.ones(len(design.y)) if design.weights is None else design.weights
    G = [np.diag(1 / weights)]
    for block in design.blocks:
        same = block.index[:, None] == block.index[None, :]
        for part in block.slices:
            for a in range(part.start, part.stop):
                for b in range(a, part.stop):
                    E = np.zeros((len(block.columns), len(block.columns)))
                    E[a, b] = E[b, a] = 1.0
                    G.append(same * (block.Z @ E @ block.Z.T))
    inverse = np.linalg.inv(outcome_covariance(design, fit.estimates))
    X = design.X
    Phi = np.linalg.inv(X.T @ inverse @ X)
    P = [-X.T @ inverse @ g @ inverse @ X for g in G]
    Q = [[X.T @ inverse @ g @ inverse @ h @ inverse @ X for h in G] for g in G]
    information = np.array(
        [
            [
                np.trace(g @ inverse @ h @ inverse)
                - 2 * np.trace(Phi @ Q[r][s])
                + np.trace(Phi @ P[r] @ Phi @ P[s])
                for s, h in enumerate(G)
            ]
            for r, g in enumerate(G)
        ]
    )
    W = 2 * np.linalg.inv(information)
    k = range(len(G))
    inner = sum(W[r, s] * (Q[r][s] - P[r] @ Phi @ P[s]) for r in k for s in k)
    vcov = Phi + 2 * Phi @ inner @ Phi
    df = []
    for j in range(len(Phi)):
        t = np.array([(Phi @ p @ Phi)[j, j] for p in P])
        df.append(2 * Phi[j, j] ** 2 / (t @ W @ t))
    return vcov, np.array(df)


def tables():
    rng = np.random.default_rng(2)
    frame, _ = simulate(2, groups=12, size=5)
    frame = frame[rng.random(len(frame)) > 0.2].reset_index(drop=True)
    frame["school"] = pd.factorize(frame["g"])[0] // 3
    frame["item"] = rng.integers(0, 4, len(frame))
    frame["w"] = rng.uniform(0.5, 2.0, len(frame))
    frame["y"] += rng.normal(size=4)[frame["item"]] + rng.normal(size=4)[frame["school"]]
    return frame


@pytest.mark.parametrize(
    ("formula", "weights"),
    [
        ("y ~ x + (x | g)", "w"),
        ("y ~ x + (x || g)", None),
        ("y ~ x + (1 | school/g)", None),
        ("y ~ x + (x | g) + (1 | school)", "w"),
        ("y ~ x + (1 | g) + (1 | item)", None),
        ("y ~ x + (x | item) + (1 | school/g)", None),
        ("y ~ 0 + x + (0 + x | g)", None),
    ],
)
def test_every_structure_as_by_hand(formula, weights):
    fit = REML(df="kenward-roger").run(make(formula, tables(), weights=weights))
    vcov, df = by_hand(fit)
    np.testing.assert_allclose(fit.vcov, vcov, rtol=1e-7, atol=1e-9 * np.abs(vcov).max())
    np.testing.assert_allclose(fit.df, df, rtol=1e-7)


def test_a_balanced_design_gives_the_exact_test():
    # One-way analysis of variance: the mean is tested on 6 - 1 = 5 degrees of freedom.
    fit = REML(df="kenward-roger").run(make("Yield ~ 1 + (1 | Batch)", load_dataset("dyestuff")))
    assert fit.df.item() == pytest.approx(5, rel=1e-6)
    plain = REML().run(fit.design)
    np.testing.assert_allclose(fit.vcov, plain.vcov, rtol=1e-6)


def test_scales_of_predictor_and_outcome_change_nothing():
    frame = tables()
    fit = REML(df="kenward-roger").run(make("y ~ x + (x | g)", frame))
    scaled = frame.assign(x=frame["x"] * 1e6, y=frame["y"] * 1e-3)
    other = REML(df="kenward-roger").run(make("y ~ x + (x | g)", scaled))
    np.testing.assert_allclose(other.df, fit.df, rtol=1e-4)
    np.testing.assert_allclose(
        other.std_errors["beta"] * [1e3, 1e9], fit.std_errors["beta"], rtol=1e-4
    )


def test_a_variance_of_zero_is_no_trouble(dyestuff2_reml):
    fit = REML(df="kenward-roger").run(dyestuff2_reml.design)
    vcov, df = by_hand(fit)
    np.testing.assert_allclose(fit.vcov, vcov, rtol=1e-7)
    np.testing.assert_allclose(fit.df, df, rtol=1e-7)


def test_intervals_cover_as_often_as_they_say():
    # A group-level predictor on eight unequal groups: intervals by the normal distribution are too
    # short, those with Kenward and Roger's are right (three standard errors of 120 samples: 0.06).
    rng = np.random.default_rng(8)
    g = np.repeat(np.arange(8), [2, 2, 3, 3, 4, 8, 9, 10])
    level = rng.normal(size=8)
    covered = {"kenward-roger": 0, "normal": 0}
    for _ in range(120):
        y = 1 + 0.5 * level[g] + rng.normal(size=8)[g] + rng.normal(size=len(g))
        design = make("y ~ z + (1 | g)", pd.DataFrame({"y": y, "z": level[g], "g": g}))
        for df in covered:
            numbers = REML(df=df).run(design).describe("beta", 0.95)
            covered[df] += numbers.lower[1] < 0.5 < numbers.upper[1]
    assert 0.89 < covered["kenward-roger"] / 120 < 1.0
    assert covered["normal"] < covered["kenward-roger"] - 4


def test_what_it_is_not_made_for_is_refused(sleepstudy, monkeypatch):
    design = make("Reaction ~ Days + (Days | Subject)", sleepstudy)
    with pytest.raises(HmlmError, match=r"made for REML: use hmlm.REML\(df='kenward-roger'\)"):
        ML(df="kenward-roger").run(design)
    monkeypatch.setattr(module, "MOST_EFFECTS", 1)
    with pytest.raises(HmlmError, match=r"too many\. Use df='satterthwaite'"):
        REML(df="kenward-roger").run(design)


def test_a_model_without_coefficients():
    fit = REML(df="kenward-roger").run(make("y ~ 0 + (1 | g)", tables()))
    assert fit.vcov.shape == (0, 0)
    assert fit.df.shape == (0,)
