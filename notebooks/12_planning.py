# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Planning a study: how many groups, how many in each?
#
# **The question.** A new way of teaching is to be tried in schools. How many schools do we need,
# and how many pupils in each? Is it better to treat whole schools, or some of the pupils in each?
#
# **The data.** None yet. That is the point: we make the data that the study might give, many times,
# and see what we could say.
#
# **What you will learn.** Why groups count for more than rows; the *design effect*, a rule of thumb
# that gets close; power by simulation, which needs no rule; what significance in a small study is
# worth; precision as the better aim; and how to plan when you do not know what to assume.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import norm

import hmlm

# Simulations of each setting.
SIMULATIONS = int(os.environ.get("HMLM_DRAWS", "1000")) // 5

# %% [markdown]
# ## What we have to assume
#
# The outcome is a score with a standard deviation of about 1. Schools differ: the standard
# deviation between them is $\tau = 0.4$, that between pupils of a school $\sigma = 0.9$. We hope
# for an effect of the treatment of 0.4. Each pupil also has an earlier score `before`,
# standardised, with a coefficient of 0.2.

# %%
truth = {"Intercept": 0, "treated": 0.4, "before": 0.2, "sd_school": 0.4, "sigma": 0.9}
tau, sigma = truth["sd_school"], truth["sigma"]
icc = tau**2 / (tau**2 + sigma**2)
print(f"Intraclass correlation: {icc:.3f}")

# %% [markdown]
# A *study* says how many groups there are, how many rows in each, and where predictors vary:
# `treated` by school, `before` by pupil.

# %%
study = hmlm.make_study(
    groups={"school": 20},
    per_group=10,
    predictors={"treated": "binary by school", "before": "normal"},
)
study.make_frame(random_seed=1).groupby("school")["treated"].agg(["size", "mean"]).head(4)

# %% [markdown]
# ## A rule of thumb: the design effect
#
# Pupils of one school are alike, so that ten of them say less about schools than ten pupils from
# ten schools. With $n$ pupils in each of $J$ schools and an intraclass correlation $\rho$, the
# variance of a mean is larger by the *design effect* $1 + (n - 1)\rho$ (Kish 1965). Dividing the
# number of pupils by it gives the *effective* number.

# %%
sizes = np.array([1, 5, 10, 20, 50, 1000])
rule = pd.DataFrame({"pupils in a school": sizes, "design effect": 1 + (sizes - 1) * icc})
rule["a school is worth"] = sizes / rule["design effect"]
rule.round(2)

# %% [markdown]
# Read the last column: however many pupils you test, a school is never worth more than $1/\rho$ = 6
# independent ones. Fifty pupils for ten are not five times as good.
#
# The rule gives a standard error of the difference between treated and other schools, and with it a
# power, the probability of a significant result:

# %%
Z = norm.ppf(0.975)


def rule_of_thumb(schools, pupils):
    effective = schools * pupils / (1 + (pupils - 1) * icc)
    error = 2 * np.sqrt((tau**2 + sigma**2) / effective)
    power = norm.cdf(truth["treated"] / error - Z) + norm.cdf(-truth["treated"] / error - Z)
    return error, power


print(f"20 schools of 10: standard error {rule_of_thumb(20, 10)[0]:.2f}", end=", ")
print(f"power {rule_of_thumb(20, 10)[1]:.2f}")

# %% [markdown]
# ## Power by simulation
#
# `plan_power` draws outcomes from the model, fits it, and counts, for every setting of `vary`. Two
# tests at once: `treated`, which belongs to the school, and `before`, which belongs to the pupil.

# %%
formula = "score ~ treated + before + (1 | school)"
plan = hmlm.plan_power(
    formula,
    study,
    truth,
    test=["treated", "before"],
    vary={"school": [10, 20, 40], "per_group": [5, 20]},
    n_simulations=SIMULATIONS,
    random_seed=1,
    progressbar=False,
)
ax = hmlm.plot_power(plan)

# %%
table = plan.table.query("test == 'treated'")
error, power = rule_of_thumb(table["school"], table["per_group"])
beside = table[["school", "per_group", "power", "power_mcse"]].assign(rule_of_thumb=power)
beside.round(2)

# %% [markdown]
# - For `before` it is the number of *pupils* that counts: 10 schools of 20 do as well as 40 of 5.
# - For `treated` it is the number of *schools*: four times as many pupils in each help little,
#   twice as many schools help much.
# - The rule of thumb is close, and a little too hopeful where schools are few: it takes the
#   variances as known, where the test has to use the t distribution.
# - The standard error of a simulated power (`power_mcse`) is in the table: differences of 0.03 mean
#   nothing.
#
# ## The same number of pupils, shared out
#
# 400 pupils can be tested. In how many schools?

# %%
shares = {10: 40, 20: 20, 40: 10, 80: 5}
found = []
for schools, pupils in shares.items():
    result = hmlm.plan_power(
        formula,
        study.vary(school=schools, per_group=pupils),
        truth,
        test=["treated", "before"],
        n_simulations=SIMULATIONS,
        random_seed=1,
        progressbar=False,
    )
    found.append(result.table.assign(schools=schools, pupils=pupils))
found = pd.concat(found)
found.pivot(index=["schools", "pupils"], columns="test", values=["power", "interval_width"]).round(
    2
)

# %% [markdown]
# For what belongs to the pupil it makes no difference. For the treatment, eighty schools of five
# are worth far more than ten of forty. But schools cost money: somebody has to talk to each
# headmaster. If a school costs $c$ times as much as a pupil, the best number of pupils in a school
# is (Raudenbush 1997)
#
# $$n^* = \sqrt{c\,\frac{1 - \rho}{\rho}},$$
#
# whatever the budget.

# %%
cost = np.array([1, 5, 20, 100])
best = np.sqrt(cost * (1 - icc) / icc)
budget = 1000
schools = budget / (cost + best)
pd.DataFrame(
    {
        "cost of a school": cost,
        "pupils in each": best.round(1),
        "schools for 1,000": schools.round(0),
        "power (rule)": rule_of_thumb(schools, best)[1].round(2),
    }
)

# %% [markdown]
# ## Treat pupils, not schools
#
# If half of the pupils *in each school* can be treated, what schools differ by cancels.

# %%
within = hmlm.make_study(
    groups={"school": 20},
    per_group=10,
    predictors={"treated": "binary", "before": "normal"},
)
settings = {
    "schools treated": (study, formula, truth),
    "pupils treated": (within, formula, truth),
    "pupils treated, effects vary": (
        within,
        "score ~ treated + before + (treated | school)",
        {
            **{k: v for k, v in truth.items() if k != "sd_school"},
            "sd_school": [0.4, 0.3],
            "cor_school": 0.0,
        },
    ),
}
rows = {}
for name, (plan_of, model_formula, values) in settings.items():
    result = hmlm.plan_power(
        model_formula,
        plan_of,
        values,
        test="treated",
        n_simulations=SIMULATIONS,
        random_seed=1,
        progressbar=False,
    )
    rows[name] = result.table.iloc[0][["power", "interval_width", "type_m", "coverage"]]
pd.DataFrame(rows).T.astype(float).round(2)

# %% [markdown]
# The same 200 pupils, the same effect, and far more power. The last row is a warning: if the
# *effect* differs from school to school (here with a standard deviation of 0.3), part of the gain
# is lost again, because what we ask for is the average effect over schools, and of schools there
# are 20.
#
# ## What significance is worth
#
# With a power of 0.3 one might say: let us try, we may be lucky. But look at those who are lucky.
# `type_m` is the factor by which the *significant* estimates are too large on average (Gelman and
# Carlin 2014), `type_s` the share of them with the wrong sign.

# %%
table[["school", "per_group", "power", "type_m", "type_s", "coverage"]].round(2)

# %% [markdown]
# To be significant in a study of 10 schools an estimate *has* to be large. What is published from
# such studies overstates, and the next study, planned on it, will be too small.
#
# ## Precision as the aim
#
# Power answers one question: will the interval exclude zero if the effect is as large as I hope?
# The width of the interval needs no hope. Suppose that we want to know the effect to within $\pm
# 0.25$: an interval of width 0.5.

# %%
J = np.arange(8, 161)
fig, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for pupils, color in ((5, "#E69F00"), (20, "#0072B2")):
    ax.plot(J, 2 * Z * rule_of_thumb(J, pupils)[0], color=color, label=f"{pupils} pupils in each")
    own = table[table["per_group"] == pupils]
    ax.plot(own["school"], own["interval_width"], "o", color=color)
ax.axhline(0.5, color="#777777", linestyle="--", linewidth=1)
ax.set(xlabel="schools", ylabel="width of the 95% interval", xscale="log", ylim=(0, 1.8))
ax.set_xticks([10, 20, 40, 80, 160], ["10", "20", "40", "80", "160"])
ax.set_xticks([], [], minor=True)
ax.legend(frameon=False)
ax.spines[["top", "right"]].set_visible(False)


# %%
def schools_for(width, pupils):
    return int(np.ceil(16 * Z**2 * (tau**2 + sigma**2 / pupils) / width**2))


pd.Series({n: schools_for(0.5, n) for n in (5, 10, 20, 50)}, name="schools for a width of 0.5")

# %% [markdown]
# Lines are the rule of thumb, points the simulations. Widths fall with the root of the number of
# schools: half the width takes four times as many.
#
# ## And if we do not know what to assume?
#
# The standard deviation between schools was a guess. Vary it:

# %%
guesses = hmlm.plan_power(
    formula,
    study.vary(school=40),
    truth,
    test="treated",
    vary={"sd_school": [0.2, 0.4, 0.6]},
    n_simulations=SIMULATIONS,
    random_seed=1,
    progressbar=False,
)
guesses.table[["sd_school", "power", "interval_width", "type_m"]].round(2)

# %% [markdown]
# From plenty to little. A plan that rests on one number for $\tau$ rests on luck. Take $\tau$ from
# earlier studies, with its interval (`hmlm.intraclass_correlation(fit)` of a posterior has one),
# and plan for its unfavourable end. Where there are earlier data, simulate from them: `plan_power`
# takes a data frame in the place of the study, and `hmlm.simulate_outcomes` makes single data sets
# to look at.
#
# **A routine.** (1) Write the model that you will fit. (2) Say what you assume, and where from. (3)
# Use the design effect to find the region. (4) Simulate there, with what the rule leaves out:
# slopes that vary, unequal groups, other families. (5) Look at width, `type_m` and `coverage`, not
# at power alone. (6) Vary what you do not know.
#
# ## Exercises
#
# **1.** Earlier scores explain schools better than pupils. Suppose that `before` varies between
# schools only, with an effect of 0.35, and that what is left between schools is $\tau = 0.2$. What
# does it do for the power of `treated`?
#
# <details><summary>Solution</summary>
#
# ```python
# covariate = hmlm.make_study(
#     groups={"school": 20},
#     per_group=10,
#     predictors={"treated": "binary by school", "before": "normal by school"},
# )
# better = hmlm.plan_power(
#     formula, covariate, {**truth, "before": 0.35, "sd_school": 0.2}, test="treated",
#     n_simulations=SIMULATIONS, random_seed=1, progressbar=False,
# )
# print(better.table[["power", "interval_width"]].round(2))
# ```
#
# It helps as much as twice as many schools would: a predictor of the *school* takes away the
# variance that limits us. Ask for the scores of the last year before you ask for more schools.
#
# </details>
#
# **2.** Analyse the same study wrongly: simulate with schools, and fit a regression that ignores
# them. How often is an effect of zero called significant?
#
# <details><summary>Solution</summary>
#
# ```python
# none = {**truth, "treated": 0}
# frame = study.make_frame(random_seed=1)
# model = hmlm.Model(formula, frame.assign(score=np.random.default_rng(1).normal(size=len(frame))))
# outcomes = hmlm.simulate_outcomes(model, none, n=60, random_seed=1)
# wrong = right = 0
# for score in outcomes.y:
#     simulated = hmlm.Model(formula, frame.assign(score=score))
#     fits = simulated.with_pooling("complete").fit(hmlm.OLS()), simulated.fit(hmlm.REML())
#     p = [f.tidy(groups=False).set_index("term").loc["treated", "p_value"] for f in fits]
#     wrong, right = wrong + (p[0] < 0.05), right + (p[1] < 0.05)
# print(wrong / 60, right / 60)
# ```
#
# Several times too often. The design effect is 2.5, so that the standard error is too small by a
# factor of 1.6. Power from a wrong analysis is no power.
#
# </details>
#
# **3.** The outcome is pass or fail: `passed ~ treated + (1 | school)`, half pass in an average
# school, the effect is 0.6 on the log odds, the standard deviation between schools 0.5. Is 40
# schools of 10 enough?
#
# <details><summary>Solution</summary>
#
# ```python
# yes_no = hmlm.plan_power(
#     "passed ~ treated + (1 | school)",
#     study.vary(school=40),
#     {"Intercept": 0, "treated": 0.6, "sd_school": 0.5},
#     test="treated",
#     family="bernoulli",
#     n_simulations=SIMULATIONS // 2,
#     random_seed=1,
#     progressbar=False,
# )
# print(yes_no.table[["power", "power_mcse", "type_m"]].round(2))
# ```
#
# No, if 0.8 is wanted: the power is about 0.6. A yes or no says less than a score.
#
# </details>
#
# **4.** Schools differ in size. Make the study with `sizes="poisson"` and a mean of 5 pupils: what
# does it cost?
#
# <details><summary>Solution</summary>
#
# ```python
# for how in ("balanced", "poisson"):
#     uneven = hmlm.make_study(
#         groups={"school": 40},
#         per_group=5,
#         predictors={"treated": "binary by school", "before": "normal"},
#         sizes=how,
#     )
#     result = hmlm.plan_power(
#         formula, uneven, truth, test="treated",
#         n_simulations=SIMULATIONS, random_seed=1, progressbar=False,
#     )
#     print(how, result.table[["power", "interval_width"]].round(3).to_dict("records"))
# ```
#
# Little: the width grows by a few percent at most. Sizes that differ by factors of ten cost more.
#
# </details>
#
# ## References
#
# - Gelman, A. and Carlin, J. (2014). Beyond power calculations: assessing type S (sign) and type M
#   (magnitude) errors. *Perspectives on Psychological Science* 9, 641-651.
# - Gelman, A. and Hill, J. (2007). *Data Analysis Using Regression and Multilevel/Hierarchical
#   Models*. Cambridge University Press. Chapter 20.
# - Kish, L. (1965). *Survey Sampling*. Wiley.
# - Raudenbush, S. W. (1997). Statistical analysis and optimal design for cluster randomized trials.
#   *Psychological Methods* 2, 173-185.
