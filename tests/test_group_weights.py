"""What a group's rows are worth, by hand and beside the pooling factors."""

import numpy as np
import pytest
from support import recorded_fit

import hmlm
from hmlm.errors import HmlmError
from hmlm.group_weights import weigh_groups
from hmlm.pooling_factors import measure_pooling
from hmlm.variance import design_effect

FAST = hmlm.NUTS(draws=200, chains=2)


def groups_of(table):
    return table[table["component"] == "group"].reset_index(drop=True)


def test_by_hand_of_a_classical_fit(radon):
    fit = hmlm.Model("log_radon ~ floor + (1 | county)", radon).fit(hmlm.REML())
    tau2, s2 = float(fit.estimates["sd_county"][0]) ** 2, float(fit.estimates["sigma"]) ** 2
    rho, n = tau2 / (tau2 + s2), fit.design.blocks[0].sizes
    table = weigh_groups(fit)
    own = groups_of(table)
    assert own["rows"].tolist() == n.tolist()
    assert own["effective_size"].to_numpy() == pytest.approx(n / (1 + (n - 1) * rho))
    weight = n * rho / (1 + (n - 1) * rho)
    assert own["weight"].to_numpy() == pytest.approx(weight)
    assert own["prior_rows"].to_numpy() == pytest.approx(np.full(len(n), s2 / tau2))
    # A group with as many rows as the others count for would have a weight of one half.
    assert 1 / (1 + s2 / tau2 / own["prior_rows"][0]) == pytest.approx(0.5)
    whole = table.iloc[0]
    assert (whole["component"], whole["level"], whole["rows"]) == ("level", "", 919)
    assert whole["weight"] == pytest.approx(weight.mean())
    ends = [c for c in table if c.endswith(("_lower", "_upper"))]
    assert len(ends) == 6
    assert table[ends].isna().all(axis=None)


def test_weights_are_one_minus_pooling_draw_by_draw(radon):
    model = hmlm.Model("log_radon ~ floor + (1 | county)", radon)
    fit = model.fit(FAST, random_seed=2, progressbar=False)
    own, factors = groups_of(weigh_groups(fit, prob=0.8)), groups_of(measure_pooling(fit, 0.8))
    assert own["weight"].to_numpy() == pytest.approx(1 - factors["pooling"].to_numpy())
    assert own["weight_lower"].to_numpy() == pytest.approx(1 - factors["upper"].to_numpy())
    assert own["weight_upper"].to_numpy() == pytest.approx(1 - factors["lower"].to_numpy())
    effects = design_effect(fit, prob=0.8)
    sizes = effects[effects["level"] != ""].reset_index(drop=True)
    for ours, theirs in (
        ("effective_size", "effective_size"),
        ("effective_size_lower", "lower"),
        ("effective_size_upper", "upper"),
    ):
        assert own[ours].to_numpy() == pytest.approx(sizes[theirs].to_numpy())
    ratio = (fit.variable("sigma") / fit.variable("sd_county")[..., 0]).ravel() ** 2
    assert own["prior_rows"][0] == pytest.approx(np.median(ratio))
    assert own["prior_rows_upper"][0] == pytest.approx(np.quantile(ratio, 0.9))


def test_known_standard_errors_weigh_by_them():
    schools = hmlm.load_dataset("eight_schools")
    model = hmlm.Model("se(y, sigma) ~ 1 + (1 | school)", schools)
    fit = model.fit(FAST, random_seed=2, progressbar=False)
    own, factors = groups_of(weigh_groups(fit)), groups_of(measure_pooling(fit))
    assert own["weight"].to_numpy() == pytest.approx(1 - factors["pooling"].to_numpy())
    assert own["weight"].nunique() > 4


def test_no_variance_between_groups(dyestuff2_reml):
    own = groups_of(weigh_groups(dyestuff2_reml))
    assert (own["weight"] == 0).all()
    assert np.isinf(own["prior_rows"]).all()
    assert own["effective_size"].to_numpy() == pytest.approx(np.full(6, 5.0))


def test_one_of_several_factors():
    fit = recorded_fit("penicillin_reml")
    both, one = weigh_groups(fit), weigh_groups(fit, "sample")
    assert both["group"].unique().tolist() == ["plate", "sample"]
    assert one["group"].unique().tolist() == ["sample"]
    assert one["weight"].tolist() == both.query("group == 'sample'")["weight"].tolist()
    with pytest.raises(HmlmError, match="no grouping factor 'samples'"):
        weigh_groups(fit, "samples")


def test_other_families_and_what_does_not_pool(sleepstudy_pooled):
    cbpp = hmlm.load_dataset("cbpp")
    fit = hmlm.Model("p(incidence, size) ~ period + (1 | herd)", cbpp, "binomial").fit(
        hmlm.Laplace()
    )
    tau2 = float(fit.estimates["sd_herd"][0]) ** 2
    table = weigh_groups(fit)
    assert table["prior_rows"][0] == pytest.approx(np.pi**2 / 3 / tau2)
    with pytest.raises(HmlmError, match="under partial pooling"):
        weigh_groups(sleepstudy_pooled)
