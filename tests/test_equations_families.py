"""What printing a model shows, for every family."""

import re

import numpy as np
import pandas as pd
import pytest
from test_equations import HOSTILE, all_three, check_html, check_latex, check_text

import hmlm
from hmlm.default_priors import resolve_priors
from hmlm.equations import model_latex
from hmlm.families import FAMILIES
from hmlm.letters import make_factors, prior_symbols
from hmlm.notation import LATEX, TEXT

POOLINGS = ("partial", "complete", "none")
# What the text says of a row, after its name and up to the equations of the linear predictors.
ROWS = {
    "gaussian": ["realᵢ ~ Normal(μᵢ, σ²)", "μᵢ = β₀ + β₁ xᵢ + b₀[gᵢ]"],
    "student-t": ["realᵢ ~ Student-t(ν, μᵢ, σ²)", "μᵢ = β₀ + β₁ xᵢ + b₀[gᵢ]"],
    "bernoulli": ["binaryᵢ ~ Bernoulli(pᵢ)", "logit(pᵢ) = β₀ + β₁ xᵢ + b₀[gᵢ]"],
    "binomial": ["trialsᵢ ~ Binomial(nᵢ, pᵢ)", "logit(pᵢ) = β₀ + β₁ xᵢ + b₀[gᵢ]"],
    "beta-binomial": [
        "trialsᵢ ~ BetaBinomial(nᵢ, pᵢ φ, (1 - pᵢ) φ)",
        "logit(pᵢ) = β₀ + β₁ xᵢ + b₀[gᵢ]",
    ],
    "poisson": ["countᵢ ~ Poisson(μᵢ)", "log(μᵢ) = β₀ + β₁ xᵢ + b₀[gᵢ]"],
    "negative-binomial": [
        "countᵢ ~ NegativeBinomial(mean μᵢ, shape α)",
        "log(μᵢ) = β₀ + β₁ xᵢ + b₀[gᵢ]",
    ],
    "gamma": ["positiveᵢ ~ Gamma(mean μᵢ, shape α)", "log(μᵢ) = β₀ + β₁ xᵢ + b₀[gᵢ]"],
    "lognormal": ["log(positiveᵢ) ~ Normal(μᵢ, σ²)", "μᵢ = β₀ + β₁ xᵢ + b₀[gᵢ]"],
    "beta": ["unitᵢ ~ Beta(pᵢ φ, (1 - pᵢ) φ)", "logit(pᵢ) = β₀ + β₁ xᵢ + b₀[gᵢ]"],
    "ordinal": [
        "P(orderedᵢ ≤ k) = logit⁻¹(cₖ - ηᵢ) for k = 1, 2, 3",
        "c₁ < c₂ < c₃",
        "orderedᵢ = 1, 2, 3, 4 for 0, 1, 2, 3",
        "ηᵢ = β₁ xᵢ + b₀[gᵢ]",
    ],
    "categorical": [
        "P(categoryᵢ = k) ∝ exp(ηₖᵢ) for k = 1, 2, 3, 4",
        "categoryᵢ = 1, 2, 3, 4 for u, v, w, z",
        "η₁ᵢ = 0",
        "η₂ᵢ = β⁽²⁾₀ + β⁽²⁾₁ xᵢ + b⁽²⁾₀[gᵢ]",
        "η₃ᵢ = β⁽³⁾₀ + β⁽³⁾₁ xᵢ + b⁽³⁾₀[gᵢ]",
        "η₄ᵢ = β⁽⁴⁾₀ + β⁽⁴⁾₁ xᵢ + b⁽⁴⁾₀[gᵢ]",
    ],
    "zero-inflated-poisson": [
        "countᵢ ~ π PointMass(0) + (1 - π) Poisson(μᵢ)",
        "log(μᵢ) = β₀ + β₁ xᵢ + b₀[gᵢ]",
    ],
    "zero-inflated-negative-binomial": [
        "countᵢ ~ π PointMass(0) + (1 - π) NegativeBinomial(mean μᵢ, shape α)",
        "log(μᵢ) = β₀ + β₁ xᵢ + b₀[gᵢ]",
    ],
    "hurdle-poisson": [
        "countᵢ ~ π PointMass(0) + (1 - π) ZeroTruncatedPoisson(μᵢ)",
        "log(μᵢ) = β₀ + β₁ xᵢ + b₀[gᵢ]",
    ],
    "hurdle-negative-binomial": [
        "countᵢ ~ π PointMass(0) + (1 - π) ZeroTruncatedNegativeBinomial(mean μᵢ, shape α)",
        "log(μᵢ) = β₀ + β₁ xᵢ + b₀[gᵢ]",
    ],
}
TERMS = ("x", "x + (1 | g)", "x + (x | g) + (1 | h)", "0 + kind + (x || g)", "1 + (0 + x | g)")


def table(n=60):
    rng = np.random.default_rng(11)
    count = rng.poisson(2, n)
    return pd.DataFrame(
        {
            "x": rng.normal(2, 1, n),
            "o": 0.1 * rng.normal(size=n),
            "g": np.repeat(list("abcdef"), n // 6),
            "h": np.tile(list("uvwxyz"), n // 6),
            "kind": np.tile(list("abc"), n // 3),
            "n": rng.integers(4, 9, n),
            "se": rng.uniform(0.5, 2, n),
            "w": rng.uniform(0.5, 2, n),
            "real": rng.normal(3, 1, n),
            "positive": rng.gamma(4, 0.5, n),
            "unit": rng.beta(2, 3, n),
            "count": count,
            "binary": count % 2,
            "trials": np.minimum(count, 4),
            "ordered": np.minimum(count, 3),
            "category": np.array(list("uvwz"))[np.minimum(count, 3)],
        }
    )


def design_of(name, terms="x + (1 | g)", pooling="partial", frame=None, **options):
    family = FAMILIES[name]
    left = "p(trials, n)" if family.outcome == "trials" else family.outcome
    frame = table() if frame is None else frame
    model = hmlm.Model(f"{left} ~ {terms}", frame, family=name, **options)
    return model.with_pooling(pooling).design


def section(design, level):
    """Return the lines of one level of the text."""
    text = all_three(design)[0]
    found = next(p for p in text.split("\n\n") if p.startswith(f"Level {level}"))
    return [line.strip() for line in found.splitlines()[1:]]


def rows_of(name, *terms, **options):
    return section(design_of(name, *terms, **options), 1)


def prior_rows(design):
    text = all_three(design)[0].split("\n\nPriors\n")[1]
    return [re.split(r"  +", line.strip())[:2] for line in text.splitlines()]


def check_all(design):
    text, latex, page = all_three(design)
    check_text(text)
    check_latex(latex)
    check_latex(model_latex(design))
    check_html(page)
    entries = resolve_priors(design).entries
    for notation in (TEXT, LATEX):
        symbols = [s.written for s in prior_symbols(design, notation)]
        assert len(symbols) == len(entries) == len(set(symbols))
    kinds = [s.kind for s in prior_symbols(design, TEXT)]
    for kind, entry in zip(kinds, entries, strict=True):
        assert kind == kind_of(entry.parameter, design), entry.parameter


def kind_of(parameter, design):
    """Return what a parameter is, by its name alone."""
    if parameter in ("cutpoints", *design.parameters):
        return "cutpoints" if parameter == "cutpoints" else "parameter"
    bare = parameter
    for p in design.distributional:
        bare = bare.removeprefix(f"{p.name}_")
    for start, kind in (("sd_", "sd"), ("cor_", "cor"), ("b_", "effect")):
        if bare.startswith(start):
            return kind
    return "beta"


@pytest.mark.parametrize("name", FAMILIES)
def test_level_one_of_every_family(name):
    assert rows_of(name) == ROWS[name]


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_form_of_every_family(name, pooling, terms):
    check_all(design_of(name, terms, pooling))


@pytest.mark.parametrize("terms", ["1", "x", "x + (1 | g)", "0 + kind + (x | g) + (1 | h)"])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(
    ("name", "parameter"), [(f.name, p) for f in FAMILIES.values() for p in f.parameters]
)
def test_every_parameter_with_its_own_formula(name, parameter, pooling, terms):
    check_all(design_of(name, f"x + (1 | g); {parameter} ~ {terms}", pooling))


@pytest.mark.parametrize(
    ("name", "link", "left"),
    [
        ("gaussian", "log", "log(μᵢ)"),
        ("gaussian", "inverse", "1 / μᵢ"),
        ("poisson", "identity", "μᵢ"),
        ("gamma", "inverse", "1 / μᵢ"),
        ("bernoulli", "probit", "probit(pᵢ)"),
        ("binomial", "cloglog", "cloglog(pᵢ)"),
    ],
)
def test_other_links(name, link, left):
    design = design_of(name, link=link)
    assert section(design, 1)[-1] == f"{left} = β₀ + β₁ xᵢ + b₀[gᵢ]"
    stars = all_three(design)[0].splitlines()[-1].strip()
    what = left.replace("ᵢ", "") if link != "identity" else "the expected outcome"
    assert stars == f"* on {what} at average predictors, β₀ + Σₖ βₖ mean(xₖ)"
    check_all(design)


def test_ordinal_probit_and_latex():
    design = design_of("ordinal", "x + (x | g) + (1 | h)", link="probit")
    first, *_, eta = section(design, 1)
    assert first == "P(orderedᵢ ≤ k) = probit⁻¹(cₖ - ηᵢ) for k = 1, 2, 3"
    # Neither c nor k may stand for the second grouping factor: they are taken.
    assert eta == "ηᵢ = β₁ xᵢ + b₀[gᵢ] + b₁[gᵢ] xᵢ + d₀[hᵢ]"
    assert [(f.letter, f.index) for f in make_factors(design)] == [("b", "j"), ("d", "l")]
    _, latex, _ = all_three(design)
    assert r"\operatorname{P}(\text{ordered}_i \le k) &= \operatorname{probit}^{-1}" in latex
    assert "& c_1 &< c_2 < c_3" in latex
    assert r"c_k - {\textstyle\sum_l} \beta_l \bar{x}_l &\sim" in latex
    assert prior_rows(design)[0] == ["cₖ*", "cutpoints"]
    assert prior_rows(design)[-1] == ["* at average predictors, cₖ - Σₗ βₗ mean(xₗ)"]


def test_ordinal_without_predictors_has_no_star():
    design = design_of("ordinal", "1 + (1 | g)")
    assert section(design, 1)[-1] == "ηᵢ = b₀[gᵢ]"
    assert "*" not in all_three(design)[0]


def test_two_categories_have_one_cutpoint():
    frame = table().assign(ordered=table()["binary"] + 1)
    assert rows_of("ordinal", frame=frame) == [
        "P(orderedᵢ ≤ k) = logit⁻¹(cₖ - ηᵢ) for k = 1",
        "ηᵢ = β₁ xᵢ + b₀[gᵢ]",
    ]


def test_many_categories():
    frame = table(600)
    frame["ordered"] = np.arange(600) % 12
    rows = rows_of("ordinal", frame=frame)
    assert rows[1] == "c₁ < c₂ < ... < c₁₁"
    assert rows[2] == "orderedᵢ = 1, ..., 12 for 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"
    frame["category"] = [f"the category of number {k:02d}" for k in np.arange(600) % 12]
    design = design_of("categorical", frame=frame)
    rows = section(design, 1)
    labels = "the cat…ber 00, the cat…ber 01, ..., the cat…ber 11"
    assert rows[1] == f"categoryᵢ = 1, ..., 12 for {labels}"
    assert rows[-1] == "η₁₂ᵢ = β⁽¹²⁾₀ + β⁽¹²⁾₁ xᵢ + b⁽¹²⁾₀[gᵢ]"
    assert r"\eta_{12,i} &= \beta^{(12)}_0" in all_three(design)[1]
    check_all(design)


def test_categories_in_every_place():
    design = design_of("categorical", "x + (x | g)")
    assert section(design, 2)[:3] == [
        "(b⁽²⁾₀ⱼ, b⁽²⁾₁ⱼ) ~ MVN(0, D⁽²⁾)",
        "D⁽²⁾ = diag(sd⁽²⁾₀, sd⁽²⁾₁) R⁽²⁾ diag(sd⁽²⁾₀, sd⁽²⁾₁)",
        "R⁽²⁾ ~ LKJ(2)",
    ]
    assert ["sd⁽³⁾₁", "mu_w_sd_g[x]"] in prior_rows(design)
    assert ["β⁽⁴⁾₀*", "mu_z_Intercept"] in prior_rows(design)
    assert prior_rows(design)[-1] == ["* on each η at average predictors, β₀ + Σₖ βₖ mean(xₖ)"]
    latex = all_three(design)[1]
    assert r"\propto \operatorname{exp}(\eta_{ki})" in latex
    assert r"b^{(2)}_{0,\text{g}[i]}" in latex
    assert r"\beta^{(3)}_0 + {\textstyle\sum_k} \beta^{(3)}_k \bar{x}_k &\sim" in latex
    single = all_three(design_of("categorical"))[1]
    assert r"b^{(2)}_{0j} &\sim \operatorname{Normal}(0, (\operatorname{sd}^{(2)}_0)^2)" in single
    left_out = all_three(design_of("categorical", "x + (x | g)", "none"))[0]
    assert "already contain them: Intercept, x.\n" in left_out


@pytest.mark.parametrize("name", ["bernoulli", "binomial"])
def test_words_say_what_counts_as_success(name):
    frame = table().assign(use=lambda d: np.where(d["binary"] == 1, "Y", "N"))
    design = hmlm.Model("use ~ x + (1 | g)", frame, family=name).design
    first = "useᵢ ~ Bernoulli(pᵢ)" if name == "bernoulli" else "useᵢ ~ Binomial(1, pᵢ)"
    assert section(design, 1)[:2] == [first, "pᵢ = P(useᵢ = Y)"]
    assert r"p_i &= \operatorname{P}(\text{use}_i = \text{Y})" in all_three(design)[1]
    check_all(design)


def test_trials_may_be_a_number():
    design = hmlm.Model("p(trials, 4) ~ x + (1 | g)", table(), family="binomial").design
    assert section(design, 1)[0] == "trialsᵢ ~ Binomial(4, pᵢ)"
    check_all(design)


@pytest.mark.parametrize("se", ["se", "0.5"])
def test_known_standard_errors(se):
    design = hmlm.Model("real ~ x + (1 | g)", table(), se=se).design
    assert section(design, 1) == [
        "realᵢ ~ Normal(μᵢ, σᵢ²)",
        "μᵢ = β₀ + β₁ xᵢ + b₀[gᵢ]",
        "σᵢ = seᵢ (known)" if se == "se" else "σᵢ = 0.5 (known)",
    ]
    assert "sigma" not in [row[1] for row in prior_rows(design)[:-1]]
    check_all(design)


def test_sigma_with_its_own_formula():
    design = design_of("gaussian", "x + (x | g) + (1 | h); sigma ~ x + offset(o) + (x | g)")
    assert section(design, 1) == [
        "realᵢ ~ Normal(μᵢ, σᵢ²)",
        "μᵢ = β₀ + β₁ xᵢ + b₀[gᵢ] + b₁[gᵢ] xᵢ + c₀[hᵢ]",
        "log(σᵢ) = γ₀ + γ₁ xᵢ + offset(o)ᵢ + b_σ₀[gᵢ] + b_σ₁[gᵢ] xᵢ",
    ]
    assert section(design, 2)[3:] == [
        "(b_σ₀ⱼ, b_σ₁ⱼ) ~ MVN(0, D_σb)",
        "D_σb = diag(sd_σb₀, sd_σb₁) R_σb diag(sd_σb₀, sd_σb₁)",
        "R_σb ~ LKJ(2)",
    ]
    rows = prior_rows(design)
    assert rows[6:11] == [
        ["γ₀*", "sigma_Intercept"],
        ["γ₁", "sigma_x"],
        ["sd_σb₀", "sigma_sd_g[Intercept]"],
        ["sd_σb₁", "sigma_sd_g[x]"],
        ["R_σb", "sigma_cor_g"],
    ]
    assert rows[11:] == [
        ["* on the expected outcome at average predictors, β₀ + Σₖ βₖ mean(xₖ)"],
        ["* on log(σ) at average predictors, γ₀ + Σₖ γₖ mean(xₖ)"],
    ]
    latex = all_three(design)[1]
    assert r"\operatorname{Normal}(\mu_i, \sigma_i^2)" in latex
    assert r"b_{\sigma,1,\text{g}[i]} \, \text{x}_i" in latex
    assert r"\operatorname{sd}_{\sigma b,0} &\sim" in latex
    assert r"\gamma_0 + {\textstyle\sum_k} \gamma_k \bar{x}_k &\sim" in latex


def test_weights_beside_a_formula_for_sigma():
    design = design_of("gaussian", "x + (1 | g); sigma ~ x", weights="w")
    assert section(design, 1) == [
        "realᵢ ~ Normal(μᵢ, σᵢ² / wᵢ)",
        "μᵢ = β₀ + β₁ xᵢ + b₀[gᵢ]",
        "log(σᵢ) = γ₀ + γ₁ xᵢ",
        "wᵢ = wᵢ",
    ]


def test_two_parameters_with_formulas():
    terms = "x + (1 | g); alpha ~ x; zi ~ 1 + (1 | h)"
    design = design_of("zero-inflated-negative-binomial", terms)
    assert section(design, 1)[0] == (
        "countᵢ ~ πᵢ PointMass(0) + (1 - πᵢ) NegativeBinomial(mean μᵢ, shape αᵢ)"
    )
    assert section(design, 1)[2:] == ["log(αᵢ) = γ₀ + γ₁ xᵢ", "logit(πᵢ) = δ₀ + c_π₀[hᵢ]"]
    assert "c_π₀ₖ ~ Normal(0, sd_πc₀²)" in all_three(design)[0]
    assert "h: 6 groups of 10 rows" in all_three(design)[0]


def test_notes_on_pooling_name_the_groups_of_every_parameter():
    terms = "x + (1 | g); sigma ~ 1 + (1 | h)"
    text = " ".join(all_three(design_of("gaussian", terms, "complete"))[0].split())
    assert "no groups. (1 | g), (1 | h) are left out" in text
    text = " ".join(all_three(design_of("gaussian", terms, "none"))[0].split())
    assert "the 6 groups of g and the 6 groups of h has its own coefficients" in text
    assert "already contain them: Intercept, sigma_Intercept." in text
    assert "c_σ₀ₖ ~ normal(mu=" in text


def test_level_means_on_another_scale():
    text = all_three(design_of("poisson", "0 + kind + x + (1 | g)"))[0]
    assert text.endswith("* on log(μ) at the average of the other predictors")


def test_long_names_are_wrapped():
    names = {"trials": "t" * 50, "n": "m" * 50, "ordered": "o" * 50, "g": "h" * 50}
    frame = table().rename(columns=names).assign(x=1.0 * np.arange(60))
    left = f"p({names['trials']}, {names['n']})"
    right = f"x + (x | {names['g']})"
    model = hmlm.Model(f"{left} ~ {right}; phi ~ {right}", frame, family="beta-binomial")
    check_all(model.design)
    assert re.search(r"ᵢ ~\n        BetaBinomial\(m+…m+ᵢ, pᵢ φᵢ, \(1 - pᵢ\) φᵢ\)\n", str(model))
    check_all(hmlm.Model(f"{names['ordered']} ~ {right}", frame, family="ordinal").design)


def test_many_correlated_effects():
    rng = np.random.default_rng(3)
    frame = table(600).assign(**{f"z{k}": rng.normal(size=600) for k in range(8)})
    slopes = " + ".join(f"z{k}" for k in range(8))
    design = design_of("gaussian", f"x + (1 | h); sigma ~ ({slopes} | g)", frame=frame)
    assert "diag(sd_σc₀, ..., sd_σc₈) R_σc" in all_three(design)[0]
    check_all(design)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_in_every_place(name):
    frame = table()
    count = frame["count"]
    frame[f"y{name}"], frame[f"n{name}"] = frame["trials"], frame["n"]
    frame[f"se{name}"], frame[f"x{name}"], frame[f"g{name}"] = frame["se"], frame["x"], frame["g"]
    frame["yes"] = np.where(count % 2, f"{name}1", f"{name}0")
    labels = [f"{name}{k}" for k in range(4)]
    frame["label"] = pd.Categorical.from_codes(np.minimum(count, 3), labels, ordered=True)
    right = f"`x{name}` + (`x{name}` | `g{name}`)"
    for left, family in (
        (f"p(`y{name}`, `n{name}`)", "binomial"),
        ("yes", "bernoulli"),
        ("label", "ordinal"),
        ("label", "categorical"),
    ):
        check_all(hmlm.Model(f"{left} ~ {right}", frame, family=family).design)
    check_all(hmlm.Model(f"real ~ {right}", frame, se=f"se{name}").design)
    check_all(hmlm.Model(f"real ~ {right}; sigma ~ {right}", frame).design)
