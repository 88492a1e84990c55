"""Both ends of partial pooling, against least squares by numpy; and the road between them."""

import numpy as np
import pytest
from support import dense_log_likelihood, make, recorded_fit

import hmlm
from hmlm.errors import HmlmError
from hmlm.plots.conditional import condition_on_sd
from hmlm.pooling_limits import estimate_at

CASES = {
    "alcohol": ("alcuse ~ coa + peer + time + (time | id)", "id", "time"),
    "radon": ("log_radon ~ floor + (floor | county)", "county", "floor"),
    "sleepstudy": ("Reaction ~ Days + (Days | Subject)", "Subject", "Days"),
}
each_case = pytest.mark.parametrize("name", CASES)


@pytest.fixture(scope="module")
def ends():
    """Estimates at zero and at infinity, with the data, of every case."""
    found = {}
    for name, (formula, *_) in CASES.items():
        data = hmlm.load_dataset(name)
        found[name] = (data, estimate_at(hmlm.Model(formula, data), [0, np.inf]))
    return found


def part(table, sd, component):
    rows = table[(table["sd"] == sd) & (table["component"] == component)]
    return rows.set_index(["level", "term"] if component in ("total", "line") else "term")


def columns(data, names):
    return np.column_stack([np.ones(len(data)), *(data[n].to_numpy(float) for n in names)])


@each_case
def test_zero_is_complete_pooling(ends, name):
    data, table = ends[name]
    formula, _, x = CASES[name]
    y = data[formula.split(" ~ ")[0]].to_numpy(float)
    terms = ["coa", "peer", "time"] if name == "alcohol" else [x]
    X = columns(data, terms)
    beta, rss, *_ = np.linalg.lstsq(X, y)
    sigma = np.sqrt(rss[0] / (len(y) - X.shape[1]))
    errors = sigma * np.sqrt(np.diag(np.linalg.inv(X.T @ X)))
    found = part(table, 0.0, "population")
    assert found["estimate"].to_numpy() == pytest.approx(beta, rel=1e-9)
    assert found["std_error"].to_numpy() == pytest.approx(errors, rel=1e-9)
    assert part(table, 0.0, "residual")["estimate"].item() == pytest.approx(sigma, rel=1e-9)
    totals = part(table, 0.0, "total")["estimate"].unstack()
    both = np.broadcast_to(beta[[0, -1]], totals.shape)
    assert totals[["Intercept", x]].to_numpy(float) == pytest.approx(both, rel=1e-9)


@each_case
def test_infinity_is_no_pooling(ends, name):
    data, table = ends[name]
    formula, group, x = CASES[name]
    y = data[formula.split(" ~ ")[0]]
    kind = "line" if name == "alcohol" else "total"
    found = part(table, np.inf, kind)
    # One residual variance for all groups, as in a regression with all coefficients at once.
    rss, free = 0.0, len(data)
    own = {}
    for level, rows in data.groupby(group, observed=True).groups.items():
        Z = columns(data.loc[rows], [x])
        beta, _, rank, _ = np.linalg.lstsq(Z, y.loc[rows].to_numpy(float))
        rss += float(((y.loc[rows] - Z @ beta) ** 2).sum())
        free -= rank
        own[level] = (beta, np.linalg.inv(Z.T @ Z) if rank == 2 else None, Z)
    sigma = np.sqrt(rss / free)
    assert part(table, np.inf, "residual")["estimate"].item() == pytest.approx(sigma, rel=1e-9)
    undetermined = 0
    for level, (beta, inverse, Z) in own.items():
        rows = found.loc[level].loc[["Intercept", x]]
        if inverse is not None:
            assert rows["estimate"].to_numpy() == pytest.approx(beta, rel=1e-6, abs=1e-8)
            errors = sigma * np.sqrt(np.diag(inverse))
            assert rows["std_error"].to_numpy() == pytest.approx(errors, rel=1e-6)
        else:
            undetermined += 1
            # All of its houses are on one floor: in the basement the intercept is their mean.
            assert np.isnan(rows.loc[x, "estimate"])
            assert np.isnan(rows.loc["Intercept", "estimate"]) == bool(Z[0, 1])
    assert (undetermined > 0) == (name == "radon")


def test_infinity_of_the_population_is_the_mean_of_the_groups(ends):
    _, table = ends["sleepstudy"]
    totals = part(table, np.inf, "total")["estimate"].unstack().mean()
    beta = part(table, np.inf, "population")
    for term in ("Intercept", "Days"):
        assert beta.loc[term, "estimate"] == pytest.approx(totals[term], rel=1e-9)
    assert np.isinf(beta["std_error"]).all()


def test_eight_schools_at_both_ends():
    schools = hmlm.load_dataset("eight_schools")
    table = estimate_at(hmlm.Model("se(y, sigma) ~ 1 + (1 | school)", schools), [0, np.inf])
    y, s = schools["y"].to_numpy(float), schools["sigma"].to_numpy(float)
    mean = np.linalg.lstsq((1 / s)[:, None], y / s)[0][0]
    pooled = part(table, 0.0, "total")
    assert pooled["estimate"].to_numpy() == pytest.approx(np.full(8, mean))
    assert pooled["std_error"].to_numpy() == pytest.approx(np.full(8, (s**-2).sum() ** -0.5))
    alone = part(table, np.inf, "total")
    assert alone["estimate"].to_numpy() == pytest.approx(y)
    assert alone["std_error"].to_numpy() == pytest.approx(s)
    assert "residual" not in set(table["component"])


@each_case
def test_limits_are_approached(ends, name):
    data, _ = ends[name]
    near = estimate_at(hmlm.Model(CASES[name][0], data), [1e-5, 1e5], sigma="fit")
    limit = estimate_at(hmlm.Model(CASES[name][0], data), [0, np.inf], sigma="fit")
    for close, end in ((1e-5, 0.0), (1e5, np.inf)):
        here, there = near[near["sd"] == close], limit[limit["sd"] == end]
        keep = (there["component"] != "sd").to_numpy() & there["estimate"].notna().to_numpy()
        gap = here["estimate"].to_numpy()[keep] - there["estimate"].to_numpy()[keep]
        scale = np.abs(there["estimate"].to_numpy()[keep]).max()
        assert np.abs(gap).max() < 1e-6 * scale


@pytest.mark.parametrize(
    "record", ["alcohol_reml", "sleepstudy_reml", "sleepstudy_uncorrelated_reml", "pastes_reml"]
)
def test_at_the_fit_it_is_the_fit(record):
    fit = recorded_fit(record)
    block = fit.design.blocks[0]
    sd = float(fit.estimates[f"sd_{block.group}"][0])
    table = estimate_at(fit, sd)
    theirs = fit.tidy()
    for component in ("population", "total", "line", "sd", "residual"):
        ours = table[table["component"] == component]
        other = theirs[theirs["component"] == component]
        assert ours["term"].tolist() == other["term"].tolist()
        expected = other["estimate"].to_numpy()
        assert ours["estimate"].to_numpy() == pytest.approx(expected, rel=2e-4, abs=1e-5)
        if component not in ("sd", "residual"):
            errors = other["std_error"].to_numpy()
            assert ours["std_error"].to_numpy() == pytest.approx(errors, rel=2e-4)


def test_sigma_maximises_the_dense_restricted_likelihood(sleepstudy):
    fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy).fit(hmlm.REML())
    table = estimate_at(fit, 60.0)
    at = dict(fit.estimates)
    at["sd_Subject"] = part(table, 60.0, "sd")["estimate"].to_numpy(float)
    sigma = float(part(table, 60.0, "residual")["estimate"].item())
    best, low, high = (
        dense_log_likelihood(fit.design, {**at, "sigma": sigma * factor}, reml=True)
        for factor in (1.0, 0.999, 1.001)
    )
    assert best > low
    assert best > high
    assert low == pytest.approx(high, abs=1e-5)


def test_it_is_what_plot_conditional_draws(radon):
    fit = hmlm.Model("log_radon ~ floor + (1 | county)", radon).fit(hmlm.REML())
    sds = np.array([0.05, 0.3, 1.0])
    block = fit.design.blocks[0]
    curves = condition_on_sd(fit.design, block, 0, sds, fit.estimates["sd_county"][:, None] ** 2)
    table = estimate_at(fit, sds)
    totals = table[table["component"] == "total"]
    assert totals["estimate"].to_numpy().reshape(3, -1) == pytest.approx(curves.mean, rel=1e-5)
    assert totals["std_error"].to_numpy().reshape(3, -1) == pytest.approx(curves.sd, rel=1e-4)


def test_one_of_two_crossed_factors_is_moved():
    fit = recorded_fit("penicillin_reml")
    table = estimate_at(fit, np.inf, group="plate")
    sds = table[table["component"] == "sd"].set_index("group")["estimate"]
    assert np.isinf(sds["plate"])
    assert sds["sample"] == pytest.approx(float(fit.estimates["sd_sample"][0]))
    # Plates as dummies, samples at random: the generalised least-squares estimate of a plate.
    design = fit.design
    plate, sample = design.blocks
    sigma = float(table[table["component"] == "residual"]["estimate"].item())
    same = sample.index[:, None] == sample.index[None, :]
    V = sigma**2 * np.eye(len(same)) + sds["sample"] ** 2 * same
    D = (plate.index[:, None] == np.arange(len(plate.levels))).astype(float)
    P = np.linalg.solve(V, D)
    own = np.linalg.solve(D.T @ P, P.T @ design.y)
    totals = table.query("component == 'total' and group == 'plate'")
    assert totals["estimate"].to_numpy() == pytest.approx(own, rel=1e-8)
    errors = np.sqrt(np.diag(np.linalg.inv(D.T @ P)))
    assert totals["std_error"].to_numpy() == pytest.approx(errors, rel=1e-8)


def test_weights_count(sleepstudy):
    weighted = sleepstudy.assign(w=np.tile([1.0, 3.0], 90))
    model = hmlm.Model("Reaction ~ Days + (1 | Subject)", weighted, weights="w")
    table = estimate_at(model, 0)
    root = np.sqrt(weighted["w"].to_numpy())
    X = columns(weighted, ["Days"]) * root[:, None]
    beta = np.linalg.lstsq(X, root * weighted["Reaction"].to_numpy())[0]
    assert part(table, 0.0, "population")["estimate"].to_numpy() == pytest.approx(beta)


def test_default_grid_and_draws(sleepstudy):
    model = hmlm.Model("Reaction ~ Days + (1 | Subject)", sleepstudy)
    fit = model.fit(hmlm.NUTS(draws=200, chains=2), random_seed=1, progressbar=False)
    table = estimate_at(fit)
    grid = table["sd"].unique()
    middle = float(fit.variable("sd_Subject").mean())
    assert grid[[0, -1]].tolist() == [0.0, np.inf]
    assert middle in grid.tolist()
    # What is far from the others comes back as it is pooled less.
    far = table.query("component == 'total' and level == '337' and term == 'Intercept'")
    assert (np.diff(far["estimate"].to_numpy()) > 0).all()


def test_what_cannot_be_answered_is_refused(sleepstudy, sleepstudy_alone):
    model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy)
    for wrong in (-1.0, [], "a", [[1.0]], np.nan):
        with pytest.raises(HmlmError, match="from zero to infinity"):
            estimate_at(model, wrong)
    with pytest.raises(HmlmError, match=r"no grouping factor 'subject'.*'Subject'"):
        estimate_at(model, 1.0, group="subject")
    with pytest.raises(HmlmError, match="'optimum' or 'fit'"):
        estimate_at(model, 1.0, sigma="best")
    with pytest.raises(HmlmError, match="does not pool partially"):
        estimate_at(sleepstudy_alone, 1.0)
    counts = hmlm.Model("Reaction ~ 1 + (1 | Subject)", sleepstudy.round(), "poisson")
    with pytest.raises(HmlmError, match="gaussian"):
        estimate_at(counts, 1.0)


def test_too_many_coefficients_are_refused():
    rng = np.random.default_rng(1)
    data = {"y": rng.normal(size=2600), "g": np.repeat(np.arange(1300), 2)}
    fit = hmlm.REML().run(make("y ~ 1 + (1 | g)", data))
    with pytest.raises(HmlmError, match=r"1,301.*plot_conditional"):
        estimate_at(fit, 1.0)
