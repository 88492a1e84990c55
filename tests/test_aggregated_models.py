"""Fits from sums over rows equal fits from the rows."""

import tracemalloc

import numpy as np
import pandas as pd
import polars as pl
import pytest

import hmlm
from hmlm.errors import DataError, HmlmError
from hmlm.fitting.conditional_effects import LARGEST_INTEGRATED_REST
from hmlm.likelihoods.gaussian import gaussian_sums, known_sigma2
from hmlm.likelihoods.glmm_pack import pack_rows
from hmlm.likelihoods.optimum import best_point
from hmlm.likelihoods.posterior import kernel_covers, pack
from hmlm.likelihoods.preliminary import _Fitter, preliminary
from hmlm.likelihoods.rows import make_rows


def _tables():
    rng = np.random.default_rng(1)
    sleep = hmlm.load_dataset("sleepstudy")
    moved = sleep.assign(
        w=rng.uniform(0.5, 2.0, len(sleep)),
        year=2000.0 + sleep["Days"],
        big=1e6 + sleep["Reaction"],
        error=rng.uniform(15.0, 35.0, len(sleep)),
    )
    contraception = hmlm.load_dataset("contraception")
    n = len(contraception)
    counts = contraception.assign(
        age5=contraception["age"] // 5 * 5,
        k=rng.negative_binomial(2, 0.4, n),
        e=np.round(rng.uniform(0, 1, n)),
        r=np.round(rng.gamma(2, 1, n), 1) + 0.1,
        o=rng.integers(0, 4, n),
    )
    names = ("alcohol", "radon", "egsingle", "penicillin", "eight_schools", "cbpp")
    return {
        "sleepstudy": sleep,
        "moved": moved,
        "counts": counts,
        **{name: hmlm.load_dataset(name) for name in names},
    }


TABLES = _tables()

GAUSSIAN = {
    "slopes": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", {}),
    "group predictor": ("alcohol", "alcuse ~ coa + peer * time + (time | id)", {}),
    "factor": ("radon", "log_radon ~ C(floor) + log_uranium + (floor | county)", {}),
    "nested": ("egsingle", "math ~ year + female + (year | school/child)", {}),
    "crossed": ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", {}),
    "weights": ("moved", "Reaction ~ Days + (Days | Subject)", {"weights": "w"}),
    "known errors": ("eight_schools", "y ~ 1 + (1 | school)", {"se": "sigma"}),
    "known errors of rows": ("moved", "Reaction ~ Days + (Days | Subject)", {"se": "error"}),
    "bad scales": ("moved", "big ~ year + (year | Subject)", {}),
    "offset": ("moved", "Reaction ~ Days + offset(w) + (1 | Subject)", {}),
}
# The outcome of 1e6 leaves fewer digits of its variation.
DIGITS = {"bad scales": 1e-8}

MERGED = {
    "binomial": ("cbpp", "p(incidence, size) ~ period + (1 | herd)", "binomial"),
    "bernoulli": ("counts", "use ~ age5 + urban + (1 | district)", "bernoulli"),
    "poisson": ("counts", "k ~ age5 + offset(e) + (1 | district)", "poisson"),
    "negative binomial": ("counts", "k ~ age5 + scale(e) + (1 | district)", "negative-binomial"),
    "gamma": ("counts", "r ~ age5 + (1 | district)", "gamma"),
}
SAMPLED = {
    **MERGED,
    "zero-inflated": ("counts", "k ~ age5 + (1 | district)", "zero-inflated-poisson"),
    "lognormal": ("counts", "r ~ age5 + (1 | district)", "lognormal"),
    "student": ("counts", "r ~ age5 + (1 | district)", "student-t"),
    "ordinal": ("counts", "o ~ age5 + (1 | district)", "ordinal"),
    "categorical": ("counts", "o ~ age5 + (1 | district)", "categorical"),
    "sigma": ("counts", "r ~ age5 + (1 | district); sigma ~ e", "gaussian"),
}


def both(case):
    """Return the model of the rows, and of sums over them."""
    name, formula, more = case
    settings = {"family": more} if isinstance(more, str) else more
    whole = hmlm.Model(formula, TABLES[name], **settings)
    return whole, hmlm.Model(formula, TABLES[name], aggregate=True, **settings)


def assert_alike(found, expected, rtol):
    """Compare arrays relative to the largest of their numbers."""
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    known = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(found), known)
    size = float(np.abs(expected[known]).max(initial=0.0)) or 1.0
    np.testing.assert_allclose(found[known], expected[known], rtol=0.0, atol=rtol * size)


def assert_same_fit(own, other, rtol):
    """Compare all that two classical fits say."""
    for name, value in other.estimates.items():
        assert_alike(own.estimates[name], value, rtol)
    for name, value in other.std_errors.items():
        assert_alike(own.std_errors[name], value, rtol)
    assert_alike(own.vcov, other.vcov, rtol)
    assert_alike(own.df, other.df, 1e-6)
    np.testing.assert_allclose(own.log_likelihood, other.log_likelihood, rtol=1e-10)
    np.testing.assert_allclose([own.aic, own.bic], [other.aic, other.bic], rtol=1e-9)
    assert own.restricted == other.restricted


@pytest.mark.parametrize("case", GAUSSIAN)
def test_gaussian_fits_are_those_of_the_rows(case):
    whole, sums = both(GAUSSIAN[case])
    rtol = DIGITS.get(case, 1e-10)
    assert sums.design.terms == whole.design.terms
    assert sums.design.n_rows == len(whole.design.y)
    assert sums.priors.equals(whole.priors)
    assert str(sums) == str(whole)
    for method in (hmlm.REML(), hmlm.ML()):
        # Where the optimiser stops differs a little; what it stops at does not.
        assert_same_fit(sums.fit(method), whole.fit(method), max(rtol, 1e-8))
    for pooling in ("complete", "none"):
        a, b = sums.with_pooling(pooling), whole.with_pooling(pooling)
        assert a.priors.equals(b.priors)
        if pooling == "none" and case in ("nested", "crossed"):
            continue
        assert_same_fit(a.fit(hmlm.OLS()), b.fit(hmlm.OLS()), rtol)


@pytest.mark.parametrize("case", ["slopes", "crossed", "known errors", "weights"])
def test_the_likelihood_at_a_point_is_that_of_the_rows(case):
    from hmlm.likelihoods.profiled import profiled_deviance

    whole, sums = both(GAUSSIAN[case])
    a, b = gaussian_sums(sums.design), gaussian_sums(whole.design)
    theta = best_point(b, reml=True, sigma2=known_sigma2(whole.design))[1] + 0.1
    for reml in (True, False):
        own = profiled_deviance(theta, a, reml, known_sigma2(sums.design))
        other = profiled_deviance(theta, b, reml, known_sigma2(whole.design))
        np.testing.assert_allclose(own.deviance, other.deviance, rtol=1e-11)
        np.testing.assert_allclose(own.gradient, other.gradient, rtol=1e-8, atol=1e-9)
        assert_alike(a.basis.to_user(own.gamma), b.basis.to_user(other.gamma), 1e-10)


def test_far_values_hide_nothing():
    """Groups whose predictor varies little beside that of one far row keep their own slopes."""
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(30), 20)
    x = rng.normal(size=600) + 10.0 * (g % 3)
    x[g == 4] = 3.0  # constant in one group
    x[-1] = 1e6
    table = pd.DataFrame({"x": x, "g": g, "y": 0.5 * x + rng.normal(size=600)})
    whole, sums = (
        hmlm.Model("y ~ x + (x | g)", table, aggregate=a).with_pooling("none").fit(hmlm.OLS())
        for a in ("auto", True)
    )
    np.testing.assert_array_equal(sums.effects["g"].estimable, whole.effects["g"].estimable)
    assert not whole.effects["g"].estimable[4].all()
    known = whole.effects["g"].estimable
    np.testing.assert_allclose(
        sums.estimates["b_g"][known], whole.estimates["b_g"][known], rtol=1e-6, atol=1e-6
    )
    # One value a million sds away leaves ten digits of the others' squares.
    np.testing.assert_allclose(sums.log_likelihood, whole.log_likelihood, rtol=1e-6)


def test_other_methods_take_sums():
    whole, sums = both(GAUSSIAN["slopes"])
    assert_same_fit(sums.fit(hmlm.EM()), whole.fit(hmlm.EM()), 1e-6)
    for df in ("satterthwaite", "kenward-roger"):
        own, other = sums.fit(hmlm.REML(df=df)), whole.fit(hmlm.REML(df=df))
        assert_alike(own.df, other.df, 1e-6)
        assert_alike(own.vcov, other.vcov, 1e-7)
    own, other = sums.fit(hmlm.ML()), whole.fit(hmlm.ML())
    columns = ["lower", "upper"]
    a = own.confint("profile", parameters="Days")[columns]
    b = other.confint("profile", parameters="Days")[columns]
    np.testing.assert_allclose(a, b, rtol=1e-6)
    settings = hmlm.Gibbs(draws=400, tune=100, chains=2)
    a = sums.fit(settings, random_seed=1, progressbar=False).variable("beta").mean(axis=(0, 1))
    b = whole.fit(settings, random_seed=1, progressbar=False).variable("beta").mean(axis=(0, 1))
    np.testing.assert_allclose(a, b, atol=1.5)


def density(model):
    """Return the compiled log density of a model."""
    design, priors = model.design, model._resolved()
    if kernel_covers(design, priors):
        rows = make_rows(design)
        return pack_rows(design, rows, priors, preliminary(design, rows, priors), {})
    sums = gaussian_sums(design, LARGEST_INTEGRATED_REST)
    point, theta, _ = best_point(sums, reml=True, sigma2=known_sigma2(design))
    return pack(design, sums, priors, theta, point, {})


def translated(x, own, other):
    """Return the coordinates in `other` of a point in `own`: those of coefficients may differ."""
    x, at = x.copy(), 0
    plain = isinstance(own.beta0, np.ndarray)
    maps = [(own.beta0, own.beta_map, other.beta0, other.beta_map)]
    if not plain:
        maps = list(zip(own.beta0, own.beta_map, other.beta0, other.beta_map, strict=True))
    for beta0, beta_map, base, back in maps:
        k = len(beta0)
        if k:
            x[at : at + k] = np.linalg.solve(back, beta0 + beta_map @ x[at : at + k] - base)
        at += k
    return x, at


CASES = {**GAUSSIAN, **SAMPLED}


@pytest.mark.parametrize("case", CASES)
def test_the_posterior_is_that_of_the_rows(case):
    whole, sums = both(CASES[case])
    assert sums.priors.equals(whole.priors)
    own, other = density(whole), density(sums)
    assert own.dim == other.dim
    rng = np.random.default_rng(0)
    values = []
    for _ in range(3):
        x = own.start + 0.1 * rng.standard_normal(own.dim)
        y, first = translated(x, own, other)
        (a, slope), (b, same) = own.log_density(x), other.log_density(y)
        values.append((a, b))
        if case != "student":  # whose starts differ in the sixth digit, and its coordinates too
            assert_alike(same[first:], slope[first:], 1e-5)
    values = np.array(values)
    tolerance = 1e-3 if case in ("student", "negative binomial") else 1e-6
    np.testing.assert_allclose(*(values - values[0]).T, atol=tolerance)


@pytest.mark.parametrize("case", ["slopes", "weights", "group predictor"])
def test_rows_without_pooling_have_the_same_likelihood(case):
    whole, sums = (model.with_pooling("none") for model in both(GAUSSIAN[case]))
    fitters = []
    for model in (whole, sums):
        rows = make_rows(model.design)
        fitters.append((_Fitter(model.design, rows, model._resolved()), rows.constant))
    rng = np.random.default_rng(0)
    totals = []
    for scale in (0.5, 1.0, 2.0):
        effects = [rng.normal(size=b.shape) for b in fitters[0][0].at.effects]
        for fitter, constant in fitters:
            fitter.at.effects = effects
            sigma = {"sigma": 40.0 * scale}
            totals.append(fitter.likelihood(fitter.eta(), sigma)[0] + constant)
    np.testing.assert_allclose(totals[::2], totals[1::2], rtol=1e-9)


@pytest.mark.parametrize("case", MERGED)
def test_generalised_fits_are_those_of_the_rows(case):
    whole, sums = both(MERGED[case])
    assert sums.design.n_rows == len(whole.design.y)
    assert_same_fit(sums.fit(hmlm.Laplace()), whole.fit(hmlm.Laplace()), 1e-4)
    pooled = [m.with_pooling("complete").fit(hmlm.GLM()) for m in (sums, whole)]
    assert_same_fit(*pooled, 1e-6)
    if case == "bernoulli":
        assert_same_fit(*(m.with_pooling("none").fit(hmlm.GLM()) for m in (sums, whole)), 1e-6)
        assert_same_fit(*(m.fit(hmlm.Laplace(nodes=5)) for m in (sums, whole)), 1e-4)


@pytest.fixture(scope="module")
def sampled():
    settings = hmlm.NUTS(draws=500, tune=300, chains=2)
    return [m.fit(settings, random_seed=1, progressbar=False) for m in both(GAUSSIAN["slopes"])]


def test_draws_agree(sampled):
    whole, sums = sampled
    for name in ("beta", "sd_Subject", "sigma", "b_Subject"):
        a, b = (fit.variable(name).mean(axis=(0, 1)) for fit in sampled)
        sd = whole.variable(name).std(axis=(0, 1))
        assert (np.abs(a - b) < 0.3 * sd).all(), name
    assert "observed_data" not in sums.draws.children
    assert sums.status.problems == ()


def test_what_follows_from_sums_is_that_of_the_rows():
    for case, method in ((GAUSSIAN["group predictor"], hmlm.REML()), (MERGED["bernoulli"], None)):
        whole, sums = (m.fit(method or hmlm.Laplace()) for m in both(case))
        for scale in ("link", "response"):
            a, b = hmlm.tidy(sums, scale=scale), hmlm.tidy(whole, scale=scale)
            assert a["term"].tolist() == b["term"].tolist()
            numbers = ["estimate", "std_error", "lower", "upper"]
            np.testing.assert_allclose(a[numbers], b[numbers], rtol=1e-4, atol=1e-6)
        a, b = hmlm.split_variance(sums), hmlm.split_variance(whole)
        np.testing.assert_allclose(a["estimate"], b["estimate"], rtol=1e-4)
        group = whole.design.blocks[0].group
        pd.testing.assert_series_equal(
            hmlm.design_effect(sums, group)["rows"], hmlm.design_effect(whole, group)["rows"]
        )
    assert "Standardized" not in str(sums.summary())


def test_groups_left_out_are_those_of_the_rows(sampled):
    from hmlm.group_likelihood import integrate_groups

    whole, sums = sampled
    posterior = {k: whole.variable(k)[0, :20] for k in whole.design.dims}
    a = integrate_groups(sums.design, posterior, "Subject")
    b = integrate_groups(whole.design, posterior, "Subject")
    np.testing.assert_allclose(a, b, rtol=1e-9)


def test_likelihood_ratios_are_those_of_the_rows():
    formulas = ("Reaction ~ 1 + (1 | Subject)", "Reaction ~ Days + (1 | Subject)")
    table = TABLES["sleepstudy"]
    found = []
    for aggregate in ("auto", True):
        fits = [hmlm.Model(f, table, aggregate=aggregate).fit(hmlm.ML()) for f in formulas]
        found.append(hmlm.likelihood_ratio_test(*fits))
    numbers = [f.select_dtypes("number").to_numpy() for f in found]
    np.testing.assert_allclose(*numbers, rtol=1e-7)


ROWWISE = {
    "predict": lambda fit: fit.predict(),
    "check": lambda fit: fit.check(),
    "loo": lambda fit: hmlm.leave_one_out(fit),
    "averages": lambda fit: hmlm.average_predictions(fit),
    "slopes": lambda fit: hmlm.average_slopes(fit, "Days"),
    "replicates": lambda fit: hmlm.plot_ppc(fit),
    "model": lambda fit: fit.model,
    "save": lambda fit: fit.save("fit.zip"),
    "sensitivity": lambda fit: hmlm.measure_sensitivity(fit),
}


@pytest.mark.parametrize("what", ROWWISE)
def test_what_needs_rows_says_so(sampled, what):
    with pytest.raises(HmlmError, match=r"needs the rows of the table.*sample_groups"):
        ROWWISE[what](sampled[1])


def test_classical_fits_say_what_needs_rows():
    _, sums = both(GAUSSIAN["slopes"])
    fit = sums.fit(hmlm.ML())
    with pytest.raises(HmlmError, match="needs the rows"):
        _ = fit.fitted
    with pytest.raises(HmlmError, match="needs the rows"):
        fit.confint("bootstrap", n=20, progressbar=False)
    with pytest.raises(HmlmError, match="needs the rows"):
        sums.build()


def test_rows_may_be_read_into_memory(tmp_path):
    table = TABLES["sleepstudy"]
    path = tmp_path / "sleep.csv"
    table.to_csv(path, index=False)
    formula = "Reaction ~ Days + (Days | Subject)"
    whole = hmlm.Model(formula, path, aggregate=False).fit(hmlm.REML())
    assert len(whole.fitted) == 180
    assert any("read into memory" in note for note in whole.status.notes)
    sums = hmlm.Model(formula, path).fit(hmlm.REML())
    assert any("180 rows of the CSV" in note for note in sums.status.notes)
    np.testing.assert_allclose(whole.log_likelihood, sums.log_likelihood, rtol=1e-10)


def test_side_by_side_takes_sums():
    table = TABLES["sleepstudy"]
    formula = "Reaction ~ Days + (1 | Subject)"
    tables = (pl.from_pandas(table).lazy(), table)
    a, b = (hmlm.side_by_side(formula, t, random_seed=1, progressbar=False).tidy for t in tables)
    assert a[["fit", "component", "term"]].equals(b[["fit", "component", "term"]])
    assert a["fit"].nunique() == 4
    numbers = ["estimate", "std_error", "lower", "upper"]
    exact = ~a["fit"].str.contains("NUTS")
    np.testing.assert_allclose(a.loc[exact, numbers], b.loc[exact, numbers], rtol=1e-5, atol=1e-6)


def test_updates_need_the_sums_they_take():
    fit = both(GAUSSIAN["slopes"])[1].fit(hmlm.ML())
    whole = both(GAUSSIAN["slopes"])[0].fit(hmlm.ML())
    again = fit.update(method=hmlm.REML())
    np.testing.assert_allclose(
        again.log_likelihood, whole.update(method=hmlm.REML()).log_likelihood, rtol=1e-10
    )
    with pytest.raises(DataError, match="needs other sums"):
        fit.update(formula="Reaction ~ I(Days**2) + (Days | Subject)")
    lazy = pl.from_pandas(TABLES["sleepstudy"]).lazy()
    other = fit.update(formula="Reaction ~ I(Days**2) + (Days | Subject)", data=lazy)
    assert other.design.cells is not None


def test_settings_are_checked():
    table = TABLES["sleepstudy"]
    formula = "Reaction ~ Days + (1 | Subject)"
    with pytest.raises(HmlmError, match="aggregate is"):
        hmlm.Model(formula, table, aggregate="no")
    with pytest.raises(HmlmError, match="memory_limit is a size"):
        hmlm.Model(formula, pl.from_pandas(table).lazy(), memory_limit="much")
    with pytest.raises(HmlmError, match="row by row"):
        hmlm.Model(formula, table, aggregate=True, missing="impute")


def test_too_many_merged_rows_are_refused():
    rng = np.random.default_rng(0)
    table = pl.DataFrame(
        {"y": rng.integers(0, 2, 5000), "x": rng.normal(size=5000), "g": np.arange(5000) % 50}
    )
    words = r"'x' has (about )?[45],?\d{3} different values.*sample_groups.*aggregate=False"
    with pytest.raises(DataError, match=words):
        hmlm.Model("y ~ x + (1 | g)", table.lazy(), family="bernoulli", memory_limit="100kB")


@pytest.mark.parametrize("kind", ["pandas", "polars", "lazy", "csv"])
def test_samples_are_of_whole_groups(kind, tmp_path):
    from hmlm.group_samples import sample_groups

    table = TABLES["alcohol"]
    if kind == "csv":
        table.to_csv(tmp_path / "alcohol.csv", index=False)
    data = {
        "pandas": table,
        "polars": pl.from_pandas(table),
        "lazy": pl.from_pandas(table).lazy(),
        "csv": tmp_path / "alcohol.csv",
    }[kind]
    found = sample_groups(data, "id", 10, random_seed=1)
    assert list(found) == list(table)
    sizes = found.groupby("id", observed=True).size()
    whole = table.groupby("id", observed=True).size()
    assert len(sizes) == 10
    assert (sizes == whole.loc[sizes.index]).all()
    again = sample_groups(table, "id", 10, random_seed=1)
    assert sorted(again["id"]) == sorted(found["id"])


def test_nothing_as_long_as_the_table_is_made():
    rng = np.random.default_rng(0)
    rows, groups = 1_000_000, 50_000
    g = np.arange(rows) % groups
    table = pl.DataFrame({"g": g, "x": rng.normal(size=rows)}).with_columns(
        y=pl.col("x") * 0.5 + rng.normal(size=rows) + rng.normal(size=groups)[g]
    )
    lazy = table.lazy()
    settings = hmlm.NUTS(draws=200, tune=200, chains=2)
    warm = hmlm.Model("y ~ x + (1 | g)", table.filter(pl.col("g") < 40).lazy())
    warm.fit(settings, random_seed=1, progressbar=False)
    tracemalloc.start()
    model = hmlm.Model("y ~ x + (1 | g)", lazy)
    fit = model.fit(settings, random_seed=1, progressbar=False)
    fit.tidy(groups=False)
    str(fit.summary())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(model.design.y) == 2 * groups
    # All draws of the groups' effects would be 160 MB, a column of the table 8 MB.
    assert peak < 60e6
    np.testing.assert_allclose(fit.variable("beta").mean(axis=(0, 1)), [0.0, 0.5], atol=0.02)
    assert fit.variable("b_g").shape == (2, 200, groups, 1)
