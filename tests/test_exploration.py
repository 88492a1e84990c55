"""What follows from the controls: both ends are exact, and the posterior is the sampler's."""

import builtins
from dataclasses import replace

import numpy as np
import pytest
from support import simulate

import hmlm
from hmlm.errors import HmlmError
from hmlm.exploration import begin_exploration, drop_rows, follow, resize_group
from hmlm.exploration_page import Page, explore
from hmlm.exploration_posterior import sd_of, share_of
from hmlm.exploration_server import serve_exploration


@pytest.fixture(scope="module")
def model():
    frame, _ = simulate(4, groups=12, size=6)
    return hmlm.Model("y ~ x + (x | g)", frame)


@pytest.fixture(scope="module")
def state(model):
    return begin_exploration(model)


@pytest.fixture(scope="module")
def found(state):
    return follow(state)


@pytest.fixture(scope="module")
def batches():
    return hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))


def ols(model, pooling, name):
    return model.with_pooling(pooling).fit(hmlm.OLS()).describe(name, 0.95).estimate


def test_zero_is_complete_pooling(model, state, found):
    at_zero = follow(replace(state, sd=0.0), found)
    beta = ols(model, "complete", "beta")
    np.testing.assert_allclose(at_zero.partial.beta, beta, rtol=1e-10)
    np.testing.assert_allclose(at_zero.partial.lines, np.tile(beta, (12, 1)), rtol=1e-10)
    np.testing.assert_array_equal(at_zero.partial.traces, at_zero.complete.traces)


def test_infinity_is_no_pooling(model, state, found):
    at_end = follow(replace(state, sd=np.inf), found)
    np.testing.assert_allclose(at_end.partial.lines, ols(model, "none", "b_g"), rtol=1e-9)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_ends_are_approached(state, found, share):
    near = follow(replace(state, sd=sd_of(share, state.unit)), found)
    end = found.complete if share < 0.5 else found.none
    np.testing.assert_allclose(near.partial.lines, end.lines, atol=0.02)


def test_estimates_are_the_best_linear_unbiased_ones(state, found):
    """At the chosen sds and the sigma found, against the dense N x N formulas."""
    at = follow(replace(state, sd=1.3 * state.unit), found)
    design, block = state.design, state.block
    sds = 1.3 * state.parameters["sd_g"]
    D = state.parameters["cor_g"] * np.outer(sds, sds)
    Z = np.zeros((len(design.y), 12, 2))
    Z[np.arange(len(design.y)), block.index] = block.Z
    Z = Z.reshape(len(design.y), -1)
    G = np.kron(np.eye(12), D)
    V = Z @ G @ Z.T + at.partial.sigma**2 * np.eye(len(design.y))
    inverse = np.linalg.inv(V)
    beta = np.linalg.solve(design.X.T @ inverse @ design.X, design.X.T @ inverse @ design.y)
    b = (G @ Z.T @ inverse @ (design.y - design.X @ beta)).reshape(12, 2)
    np.testing.assert_allclose(at.partial.lines, beta + b, rtol=1e-6)


def test_lines_pass_through_fitted_values(state, found):
    """Where a group's line meets one of its own rows, it is the fitted value there."""
    lines, design = state.lines, state.design
    row = int(np.argmin(design.X[:, 1]))  # the left end of the axis
    level = state.block.index[row]
    assert lines.x[level, 0] == design.X[row, 1]
    fitted = design.X[row] @ found.partial.lines[level]
    assert found.partial.traces[level, 0] == pytest.approx(fitted)


def test_group_level_predictors_stay_with_their_group(alcohol):
    model = hmlm.Model("alcuse ~ coa + peer + time + (time | id)", alcohol)
    state = begin_exploration(model)
    found = follow(replace(state, sd=0.0))
    pooled = model.with_pooling("complete").fit(hmlm.OLS())
    fitted = pooled.predict(alcohol, kind="mean")["estimate"].to_numpy()
    first = np.flatnonzero(alcohol["time"].to_numpy() == 0)
    traces = found.partial.traces[state.block.index[first], 0]
    np.testing.assert_allclose(traces, fitted[first], rtol=1e-9)


@pytest.mark.parametrize(
    ("data", "formula"),
    [
        ("dyestuff", "Yield ~ 1 + (1 | Batch)"),
        ("eight_schools", "se(y, sigma) ~ 1 + (1 | school)"),
    ],
)
def test_posterior_is_that_of_the_sampler(data, formula):
    model = hmlm.Model(formula, hmlm.load_dataset(data))
    posterior = follow(begin_exploration(model)).posterior
    group = model.design.blocks[0].group
    fit = model.fit(hmlm.NUTS(draws=2000), random_seed=1, progressbar=False)
    draws = fit.variable(f"sd_{group}").reshape(-1)
    median, upper = np.quantile(draws, [0.5, 0.975])
    assert posterior.median == pytest.approx(median, rel=0.06)
    assert posterior.upper == pytest.approx(upper, rel=0.1)
    assert (draws < posterior.lower).mean() == pytest.approx(0.025, abs=0.012)


def test_posterior_along_the_ray_is_that_of_the_dense_likelihood(state, found):
    """With correlated slopes: the ratio of two densities, by brute force over sigma."""
    from hmlm.prior_distributions import log_prior_density

    design, block, parameters = state.design, state.block, state.parameters
    D = parameters["cor_g"] * np.outer(parameters["sd_g"], parameters["sd_g"])
    S = (block.index[:, None] == block.index) * (block.Z @ D @ block.Z.T)
    X, n = design.X, len(design.X)

    def density(sd):
        total = 0.0
        for sigma in np.exp(np.linspace(np.log(0.3), np.log(1.2), 160)):
            V = (sd / state.unit) ** 2 * S + sigma**2 * np.eye(n)
            inverse = np.linalg.inv(V)
            A = X.T @ inverse @ X
            r = design.y - X @ np.linalg.solve(A, X.T @ inverse @ design.y)
            log_p = -0.5 * (np.linalg.slogdet(V)[1] + np.linalg.slogdet(A)[1] + r @ inverse @ r)
            total += np.exp(log_p + log_prior_density(state.sigma_prior, sigma)) * sigma
        return total * np.exp(log_prior_density(state.prior, sd)) * (sd + state.unit) ** 2

    k, m = 170, 230
    ratio = found.posterior.density[m] / found.posterior.density[k]
    sds = found.posterior.sds
    assert ratio == pytest.approx(density(sds[m]) / density(sds[k]), rel=1e-3)


def test_narrow_prior_pools_more_and_wide_prior_less(batches):
    state = begin_exploration(batches)
    base = follow(state)
    narrow = follow(replace(state, width=0.1), base)
    wide = follow(replace(state, width=10.0), base)
    assert narrow.posterior.median < base.posterior.median < wide.posterior.median
    spread = [float(np.std(f.partial.lines)) for f in (narrow, base, wide)]
    assert spread == sorted(spread)
    assert np.mean(base.posterior.density) == pytest.approx(1.0)


def test_fewer_rows_are_those_of_the_smaller_table(batches):
    frame = batches.data.frame
    state = drop_rows(resize_group(begin_exploration(batches), 0, 2), frozenset({29}))
    keep = np.ones(30, dtype=bool)
    keep[[2, 3, 4, 29]] = False
    assert np.array_equal(state.kept, keep)
    smaller = hmlm.Model("Yield ~ 1 + (1 | Batch)", frame[keep])
    found = follow(state)
    np.testing.assert_allclose(found.none.lines, ols(smaller, "none", "b_Batch"), rtol=1e-10)
    np.testing.assert_allclose(found.complete.beta, ols(smaller, "complete", "beta"), rtol=1e-10)
    again = follow(drop_rows(resize_group(state, 0, 5), frozenset()), found)
    np.testing.assert_allclose(again.none.lines, ols(batches, "none", "b_Batch"), rtol=1e-10)


def test_smaller_group_is_pulled_further(batches):
    state = begin_exploration(batches)
    whole = follow(replace(state, sd=40.0))
    small = follow(replace(resize_group(state, 4, 1), sd=40.0))

    def kept(found):
        pooled, none = found.partial.beta[0], found.none.lines[4, 0]
        return (found.partial.lines[4, 0] - pooled) / (none - pooled)

    assert kept(small) < kept(whole) - 0.2


def test_other_factor_keeps_its_sd():
    model = hmlm.Model("diameter ~ 1 + (1 | plate) + (1 | sample)", hmlm.load_dataset("penicillin"))
    state = begin_exploration(model, "sample")
    found = follow(replace(state, sd=0.0))
    assert state.group == "sample"
    assert np.ptp(found.partial.lines) == 0
    assert np.ptp(found.none.lines) > 1


def test_controls_of_the_page_move_the_state(found):
    page = Page(found, {})
    page.share.value = 0.0
    assert page.state.sd == 0.0
    assert "complete pooling" in page._answer.object
    page.share.value = 1.0
    assert np.isinf(page.state.sd)
    page.width.value = -1.0
    assert page.state.width == pytest.approx(0.1)
    page.level.value = 3
    page.size.value = 2
    assert dict(page.state.sizes) == {3: 2}
    rows = list(page.dropped.options.values())
    page.dropped.value = rows[:1]
    assert page.state.dropped == frozenset(rows[:1])
    page.dropped.value = rows[:2]  # none would be left
    assert page.state.dropped == frozenset(rows[:1])
    assert page.dropped.value == rows[:1]
    assert "each group keeps one" in page._note.object
    page.figures.points.selected.indices = [0]
    assert page.state.dropped == frozenset()
    page.reset.clicks += 1
    assert page.state.kept.all()
    assert page.found.sd == found.sd


def test_steps_of_the_scale_are_turned_back():
    for sd in (0.0, 0.2, 3.0, np.inf):
        assert sd_of(share_of(sd, 0.7), 0.7) == pytest.approx(sd)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: resize_group(s, 0, 0), "1 to 5 rows, not 0"),
        (lambda s: resize_group(s, 0, 6), "1 to 5 rows, not 6"),
        (lambda s: drop_rows(s, frozenset(range(5))), "'A' of 'Batch' with no row"),
        (lambda s: drop_rows(s, frozenset({30})), "no rows 30"),
    ],
)
def test_impossible_rows_are_refused(batches, change, message):
    with pytest.raises(HmlmError, match=message):
        change(begin_exploration(batches))


def test_other_models_are_refused(batches, sleepstudy):
    with pytest.raises(HmlmError, match=r"no grouping factor 'Bacth'.*'Batch'"):
        begin_exploration(batches, "Bacth")
    with pytest.raises(HmlmError, match="pool"):
        begin_exploration(batches.with_pooling("complete"))
    counts = sleepstudy.assign(n=sleepstudy["Days"].astype(int))
    poisson = hmlm.Model("n ~ 1 + (1 | Subject)", counts, family="poisson")
    with pytest.raises(HmlmError, match="poisson family"):
        explore(poisson)


def test_port_in_use_is_refused(batches):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(HmlmError, match=f"port {port} of 127.0.0.1"):
            serve_exploration(batches, port=port, browser=False)


def test_absent_panel_is_said(batches, monkeypatch):
    real = builtins.__import__

    def absent(name, *rest, **more):
        if name.split(".")[0] == "panel":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(HmlmError, match=r"pip install 'hmlm\[explore\]'"):
        explore(batches)
