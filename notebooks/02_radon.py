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
# # Radon and the three poolings: the workflow around a fit
#
# **The question.** Radon is a radioactive gas that seeps from the ground into houses and causes
# lung cancer. How much of it is there in the counties of Minnesota? Does the soil explain why one
# county has more than another? And what should we say of a county in which one house, or none,
# was measured?
#
# **The data.** 919 houses in 85 counties (Price, Nero and Gelman 1996), the running example of
# Gelman and Hill (2007, chapter 12).
#
# **What you will learn.** Fitting is the short part. Before it come priors, after it checks,
# predictions, comparison and a decision about what to do next. Each step is a section here, and
# each is a call or two.

# %%
import os
import tempfile

import numpy as np
import pandas as pd
from IPython.display import Markdown

import hmlm
from hmlm.fitting.treatment import treatment_table
from hmlm.marginal import average_predictions, compare_predictions

DRAWS = int(os.environ.get("HMLM_DRAWS", "1000"))  # of each of four chains
nuts = hmlm.NUTS(draws=DRAWS, tune=DRAWS)

radon = hmlm.load_dataset("radon")
radon.head(4)

# %% [markdown]
# Each row is a house. `log_radon` is the logarithm of its radon in pCi/L, so that 1.4 is the
# level of 4 pCi/L at which something should be done. `floor` says where it was measured: 0 in the
# basement, 1 on the first floor. `log_uranium`, the uranium in the soil, belongs to the county.

# %%
sizes = radon.groupby("county", observed=True).size()
sizes.describe()[["count", "min", "50%", "max"]].to_frame("houses in a county").T

# %% [markdown]
# Half of the counties have five houses or fewer, and one has 116. That is what makes the pooling
# matter.
#
# ## Complete, no and partial pooling
#
# Write the multilevel model once. `with_pooling` gives the other two.

# %%
plain = hmlm.Model("log_radon ~ floor + (1 | county)", radon)
pooled = plain.with_pooling("complete").fit(hmlm.OLS())
alone = plain.with_pooling("none").fit(hmlm.OLS())
partial = plain.fit(nuts, random_seed=1, progressbar=False)

axes = hmlm.plot_groups(partial, alone, pooled)

# %% [markdown]
# Eight counties, small and large (`n` houses each). Complete pooling (grey) has the same line for
# all and ignores the county. No pooling (orange) believes every county, even one with two houses.
# Partial pooling (blue) lies between them: nearer the grey line where there are few houses, on the
# orange one where there are many. (Without pooling a line spans the county's own data, so there is
# none where all houses were measured in the basement.)

# %%
counties = pd.DataFrame(
    {
        "houses": sizes,
        "no pooling": hmlm.tidy(alone).query("component == 'total'").set_index("level")["estimate"],
        "partial pooling": hmlm.tidy(partial)
        .query("component == 'total'")
        .set_index("level")["estimate"],
    }
)
counties.sort_values("no pooling").iloc[[0, 1, -2, -1]].round(2)

# %% [markdown]
# The lowest and the highest of the separate estimates are of counties with few houses. If you sent
# inspectors to the top of that list, you would send them after noise.
#
# ## A predictor of the county
#
# Partial pooling draws small counties towards the average of all. We can do better: towards the
# average of counties *with the same soil*. With $j$ the county of house $i$,
#
# $$\begin{aligned}
# \text{log radon}_i &\sim \operatorname{Normal}(\alpha_{j[i]} + \beta_1\, \text{floor}_i,\;
# \sigma^2) \\
# \alpha_j &\sim \operatorname{Normal}(\beta_0 + \beta_2\, \text{log uranium}_j,\; \tau^2).
# \end{aligned}$$
#
# Without pooling this model cannot be had: 85 intercepts of their own leave nothing for uranium to
# explain. In the formula it is one more word.

# %%
model = hmlm.Model("log_radon ~ floor + log_uranium + (1 | county)", radon)

# %% [markdown]
# ## Priors in the open
#
# The defaults are scaled by the data. The table says what they are and how they came about.

# %%
model.priors[["parameter", "prior", "note"]]

# %% [markdown]
# Numbers such as these are hard to judge. What they *imply* is easier:

# %%
for sentence in hmlm.imply_priors(model, random_seed=1)["sentence"]:
    print("-", sentence)

# %% [markdown]
# Look at the last sentence. These priors hold it likely that a new house lies outside everything
# that was ever measured in Minnesota. They are *weak*: with 919 houses no harm is done. But we do
# know more, and can say so.

# %%
model = model.with_priors(
    Intercept=hmlm.Prior("normal", mu=1, sigma=1),  # 0.4 to 20 pCi/L in an average basement
    floor=hmlm.Prior("normal", mu=0, sigma=1),  # seldom more than a factor of 7
    log_uranium=hmlm.Prior("normal", mu=0, sigma=1),
    sd_county=hmlm.Prior("half-normal", sigma=0.5),
    sigma=hmlm.Prior("half-normal", sigma=1),
)
print(hmlm.imply_priors(model, random_seed=1)["sentence"].iloc[-1])
ax = hmlm.plot_prior_predictive(model, random_seed=1)

# %% [markdown]
# Each thin line is a data set that the prior could have made. Together they should cover the data
# and not much that is impossible.
#
# ## Fit, and status
#
# `status` is the first thing to read. It says whether the draws can be used, how they were made,
# and what to do if not.

# %%
fit = model.fit(nuts, random_seed=1, progressbar=False)
print(fit.status)
print(fit.summary())

# %% [markdown]
# Did the priors decide anything? `plot_priors` lays the posterior over the prior.

# %%
axes = hmlm.plot_priors(fit)

# %% [markdown]
# `sensitivity` asks the same in numbers: by how much would the posterior move if the prior, or the
# data, said a little more or less?

# %%
model.sensitivity(fit)[["component", "term", "prior", "likelihood", "verdict"]].round(3)

# %% [markdown]
# The data decide.
#
# ## Checks: could the model have made these data?

# %%
checks = fit.check(random_seed=1)
checks.found[["check", "observed", "lower", "upper", "verdict"]].round(2)

# %%
ax = hmlm.plot_ppc(fit, random_seed=1)

# %%
ax = hmlm.plot_ppc_groups(fit, random_seed=1)

# %% [markdown]
# The counties are where the model expects them. The houses are not: their tails are heavier than
# the normal distribution's, and the lowest are lower than any replicate reaches. Every check comes
# with a next step:

# %%
print(checks.found.set_index("check")["next_step"]["tails of residuals"])
radon.nsmallest(4, "log_radon")[["county", "floor", "log_radon"]].round(2)

# %% [markdown]
# The lowest value is log 0.1. Gelman and Hill put 0.1 where the meter had read zero, so that a
# logarithm could be taken: these houses are no outliers but a choice. Exercise 1 takes the advice
# and tries the t distribution. The *order within counties* is that of the file. Houses that
# follow each other there may be neighbours: a hint that a county is not the last word on place.
#
# ## Predictions
#
# Three questions that sound alike. What is expected in a basement of
#
# - a **known** county? Its own effect counts (`groups="include"`).
# - a **new** county, in which nothing was measured? It is drawn from the population, and what we
#   do not know of it is in the interval (`groups="new"`).
# - the **average** of such counties? (`groups="average"`).

# %%
known = radon.query("county == 'STLOUIS'").head(1).assign(floor=0)
where = known.assign(county="not yet visited")
answers = {
    "known county": fit.predict(known),
    "new county": fit.predict(where, groups="new", random_seed=1),
    "average county": fit.predict(where, groups="average"),
    "one house in a new county": fit.predict(where, "response", groups="new", random_seed=1),
}
pd.concat(answers).droplevel(1).round(2)

# %% [markdown]
# St. Louis County has 116 houses, so it is known well. Of a county with the same soil that nobody
# has visited less is known, and of one house least: one house differs far more from its county than
# counties do from each other. No figure for a county can replace a measurement in your own
# basement.
#
# Coefficients are about a logarithm, and about one unit. *Comparisons* ask what the model says when
# a predictor has one value or another in all of the houses that we have. Here: the floor, and the
# quartiles of uranium.

# %%
compare_predictions(fit, {"floor": (0, 1), "log_uranium": "iqr"}).round(2)

# %%
average_predictions(fit, "floor", groups="average").round(2)

# %% [markdown]
# ## Comparison: does uranium help to predict?
#
# `rank_fits` leaves out each house, and then each county, and asks how well the rest predicts it.
# `elpd_loo` is about a new house in a known county, `elpd_logo` about a new county.

# %%
complete = model.with_pooling("complete").fit(nuts, random_seed=1, progressbar=False)
ranked = hmlm.rank_fits(partial, complete, fit)
columns = ["fit", "formula", "elpd_loo", "difference", "se_difference", "elpd_logo"]
ranked[columns].round(1)

# %% [markdown]
# Uranium with counties is the best. For a new house in a known county the differences are no more
# than twice their errors: most of what is unknown of a house is not about its county. For a *new*
# county there is more to gain, because without uranium all that can be said of it is the average.
# `leave_one_group_out` has the figure of each county. Compare two fits by their differences: the
# sums themselves are mostly about how many houses a county has.

# %%
unseen = hmlm.leave_one_group_out(fit, random_seed=1)
before = hmlm.leave_one_group_out(partial, random_seed=1)
gain = unseen.pointwise - before.pointwise
print(f"Gain: {gain.sum():.1f}, standard error {np.sqrt(len(gain)) * gain.std(ddof=1):.1f}")
print(f"{np.mean(gain > 0):.0%} of the counties are predicted better with uranium.")

# %% [markdown]
# Beside it the classical answer, a likelihood-ratio test of two fits by maximum likelihood:

# %%
test = hmlm.likelihood_ratio_test(plain.fit(hmlm.ML()), model.fit(hmlm.ML()))
test[["df", "statistic", "p_value", "method"]]

# %% [markdown]
# The test asks whether uranium has *any* effect; the ranking, what it is worth for predicting.
#
# ## Where the variance is

# %%
parts = {"without uranium": partial, "with uranium": fit}
shares = {name: hmlm.split_variance(each).set_index("component") for name, each in parts.items()}
pd.concat({name: t[["estimate", "share"]] for name, t in shares.items()}, axis=1).round(3)

# %%
icc = pd.concat({name: hmlm.intraclass_correlation(each) for name, each in parts.items()})
icc.query("kind == 'adjusted'").droplevel(1)[["estimate", "lower", "upper"]].round(3)

# %% [markdown]
# Uranium takes most of the variance between counties. What it leaves is a small share.

# %%
explained = hmlm.explained_variance(fit)
explained[["measure", "group", "estimate", "lower", "upper"]].round(2)

# %% [markdown]
# Read the two rows `level`: of the variance between *houses* the model explains about a fifth, of
# that between *counties* about three quarters. One R² for both would hide this.
#
# How much does a county rely on its own houses? The pooling factor is 0 where it stands alone and 1
# where it takes all from the others.

# %%
pooling = hmlm.measure_pooling(fit).query("component == 'group'").sort_values("rows")
pooling[["level", "rows", "pooling", "lower", "upper"]].iloc[[0, 42, -2, -1]].round(2)

# %%
effect = hmlm.design_effect(partial).head(1)
effect[["rows", "design_effect", "effective_size", "lower", "upper"]].round(1)

# %% [markdown]
# Before uranium is known, 919 houses in 85 counties say as much about the mean of the state as
# this many independent houses would. That is the price of measuring neighbours.
#
# ## Keep it, and go on
#
# A file keeps the draws with data, formula, priors, seed and status. What comes back gives the
# same predictions, to the last bit.

# %%
with tempfile.TemporaryDirectory() as folder:
    fit.save(f"{folder}/radon.zip")
    again = hmlm.load_fit(f"{folder}/radon.zip")
    print("The same predictions:", again.predict().equals(fit.predict()))

# %% [markdown]
# `extend` adds draws. `update` changes one thing and leaves the rest: here an interaction (a dot
# is what was there), the priors being kept.

# %%
longer = fit.extend(draws=500, random_seed=2, progressbar=False)
print(longer.status)
interaction = fit.update(formula=". ~ . + floor:log_uranium", progressbar=False)
hmlm.compare(interaction, fit, groups=False)

# %% [markdown]
# ## When sampling is unhappy
#
# Take counties with no more than two houses, a t distribution that such data cannot tell from a
# normal one, few draws, and long steps: a model that is asking for trouble.

# %%
small = radon[radon["county"].map(sizes).astype(int) <= 2]
trouble = hmlm.Model("log_radon ~ floor + (1 | county)", small, family="student-t")
short = hmlm.NUTS(draws=200, tune=200, target_accept=0.6, engine="kernel")
unhappy = trouble.fit(short, random_seed=1, progressbar=False)
for _, found in hmlm.examine(unhappy).findings.iterrows():
    print(f"- {found['finding']}: {found['evidence']}")

# %% [markdown]
# `examine` looks for the reason: where draws diverge the standard deviation between counties is
# small, and the effects of all counties are squeezed together, the *funnel*. And the last finding
# is about the model and not about the sampler: these data say nothing about the degrees of freedom
# `nu`.
#
# `treat` tries remedies until one works. It never changes the model.

# %%
treated = hmlm.treat(unhappy)
treatment_table(treated)[["try", "divergences", "max_r_hat", "min_ess"]].round(3)

# %% [markdown]
# ## Planning the next study
#
# Suppose another state wants to know the effect of uranium. How many counties should it visit, with
# six houses in each? Take the estimates as a guess at the truth, simulate the study many times, fit
# every time, and count.

# %%
study = hmlm.make_study(
    groups={"county": 20},
    per_group=6,
    predictors={"floor": "binary", "log_uranium": "normal by county"},
)
plan = hmlm.plan_power(
    "log_radon ~ floor + log_uranium + (1 | county)",
    study,
    {"Intercept": 1.4, "floor": -0.6, "log_uranium": 0.25, "sd_county": 0.15, "sigma": 0.75},
    test=["floor", "log_uranium"],
    vary={"county": [10, 20, 40]},
    n_simulations=100,
    random_seed=1,
    progressbar=False,
)
ax = hmlm.plot_power(plan)

# %% [markdown]
# (`log_uranium` is drawn with a standard deviation of one, so its effect is that of one standard
# deviation: 0.7 times 0.36.) Power is not all: among the *significant* results of a small study,
# the estimate is too large by the factor `type_m`.

# %%
plan.table[["county", "test", "power", "power_mcse", "type_m", "coverage"]].round(2)

# %% [markdown]
# ## Missing values
#
# Two cases, and two ways. **The outcome is missing.** Such a house says nothing about the
# parameters. With `missing="impute"` it is kept aside, and its posterior is a prediction.

# %%
rng = np.random.default_rng(1)
lost = rng.choice(len(radon), 4, replace=False)
gaps = radon.copy()
gaps.loc[lost, "log_radon"] = np.nan
with_gaps = hmlm.Model("log_radon ~ floor + log_uranium + (1 | county)", gaps, missing="impute")
filled = with_gaps.fit(nuts, random_seed=1, progressbar=False)
missing = hmlm.predict_missing(filled, random_seed=1)
missing["truth"] = radon["log_radon"].to_numpy()[missing["row"]]
missing[["county", "estimate", "lower", "upper", "truth"]].round(2)

# %% [markdown]
# **A predictor is missing.** Rows with a gap are left out, and the model says so. To keep them,
# fill each gap several times, fit each table, and combine. How to fill is up to you, or to a
# package for multiple imputation. The filling must make use of the outcome, and it must not be too
# sure: here every table has its own draw from the posterior of a logistic regression.

# %%
holes = radon.astype({"floor": float})
holes.loc[rng.random(len(holes)) < 0.3, "floor"] = np.nan
gone = holes["floor"].isna().to_numpy()
filling = hmlm.Model("floor ~ log_radon + log_uranium", holes, family="bernoulli")
draws = filling.fit(nuts, random_seed=1, progressbar=False).variable("beta").reshape(-1, 3)


def fill(beta):
    eta = beta[0] + beta[1] * holes["log_radon"] + beta[2] * holes["log_uranium"]
    return holes.assign(
        floor=np.where(gone, rng.random(len(holes)) < 1 / (1 + np.exp(-eta)), holes["floor"])
    )


formula = "log_radon ~ floor + log_uranium + (1 | county)"
tables = [fill(beta) for beta in rng.choice(draws, 20)]
imputed = hmlm.impute_fit(formula, tables, method=hmlm.REML())
left_out = hmlm.Model(formula, holes).fit(hmlm.REML())
whole = hmlm.Model(formula, radon).fit(hmlm.REML())
parts = {"imputed": imputed, "rows left out": left_out, "nothing missing": whole}
kept = ["estimate", "std_error"]
pd.concat(
    {
        name: each.tidy(groups=False).query("component == 'population'").set_index("term")[kept]
        for name, each in parts.items()
    },
    axis=1,
).round(3)

# %% [markdown]
# Imputation brings back what leaving rows out cost the intercept and uranium: their standard errors
# are nearly those of the whole table. It has little to give to `floor` itself, because a house
# whose floor is missing says little about it.
#
# ## What to say

# %%
beta = fit.variable("beta").reshape(-1, 3)  # Intercept, floor, log_uranium
tau, sigma = fit.variable("sd_county").ravel(), fit.variable("sigma").ravel()


def describe(values, digits=2):
    low, high = np.quantile(values, [0.025, 0.975])
    return f"{np.mean(values):.{digits}f} (95% interval {low:.{digits}f} to {high:.{digits}f})"


Markdown(
    f"""
- **Floor**: on the first floor there is {describe(np.exp(beta[:, 1]))} times as much radon as in
  the basement of the same county.
- **Soil**: where uranium is 10% higher, radon is higher by
  {describe(100 * (1.1 ** beta[:, 2] - 1), 1)} percent.
- **Counties with the same soil** differ little: the standard deviation between them is
  {describe(tau)}, that between houses of a county {describe(sigma)}.
"""
)

# %% [markdown]
# ## Exercises
#
# **1.** The check says that the houses have heavier tails than the normal distribution. Take its
# advice. Do the checks agree? Does the model predict better?
#
# <details><summary>Solution</summary>
#
# ```python
# heavy = hmlm.Model("log_radon ~ floor + log_uranium + (1 | county)", radon, family="student-t")
# t_fit = heavy.fit(nuts, random_seed=1, progressbar=False)
# print(t_fit.check(random_seed=1).found[["check", "verdict"]])
# print(hmlm.rank_fits(fit, t_fit, groups=False).round(1).T)
# ```
#
# Of the tails and the minimum nothing is found any more. What is left is about the order of the
# file and the spread, which a t distribution does not change. It predicts better, by twice the
# standard error of the difference. (`fit` has other priors, but with so many houses that hardly
# counts.)
#
# </details>
#
# **2.** Does the floor matter more in some counties than in others? Let its effect vary by county,
# and test it.
#
# <details><summary>Solution</summary>
#
# ```python
# soil = "log_radon ~ floor + log_uranium"
# one, two = (
#     hmlm.Model(f"{soil} + ({term} | county)", radon).fit(hmlm.ML()) for term in ("1", "floor")
# )
# test = hmlm.likelihood_ratio_test(one, two)
# print(test[["df", "statistic", "p_value", "method"]])
# slopes = hmlm.Model(f"{soil} + (floor | county)", radon)
# print(slopes.fit(nuts, random_seed=1, progressbar=False).summary())
# ```
#
# A variance of zero lies on the edge of what is possible, so the statistic has a mixture of
# chi-squared distributions. The p-value is close to 0.05. Read the posterior beside it: the
# standard deviation of the floor's effect is about half as large as the effect, and its interval is
# wide: half of the counties have no more than one house measured on the first floor.
#
# </details>
#
# **3.** Someone is sure that uranium has no effect beyond 0.1, and puts a normal(0, 0.1) prior on
# it. What do `sensitivity` and `plot_priors` say?
#
# <details><summary>Solution</summary>
#
# ```python
# sure = model.with_priors(log_uranium=hmlm.Prior("normal", mu=0, sigma=0.1))
# sure_fit = sure.fit(nuts, random_seed=1, progressbar=False)
# print(sure.sensitivity(sure_fit)[["term", "prior", "likelihood", "verdict"]].round(3))
# axes = hmlm.plot_priors(sure_fit)
# ```
#
# The posterior of `log_uranium` lies far out in the prior, where neither prior nor data want it:
# prior and data disagree. So do they about the standard deviation between counties, because
# what uranium is not allowed to explain has to go somewhere. Report this; do not average it away.
#
# </details>
#
# **4.** You may visit 120 houses. Are 10 counties with 12 houses or 40 with 3 better for the
# effect of uranium? And for that of the floor?
#
# <details><summary>Solution</summary>
#
# ```python
# truth = {"Intercept": 1.4, "floor": -0.6, "log_uranium": 0.25, "sd_county": 0.15, "sigma": 0.75}
# for number, houses in ((10, 12), (40, 3)):
#     design = hmlm.make_study(
#         groups={"county": number},
#         per_group=houses,
#         predictors={"floor": "binary", "log_uranium": "normal by county"},
#     )
#     result = hmlm.plan_power(
#         "log_radon ~ floor + log_uranium + (1 | county)", design, truth,
#         test=["floor", "log_uranium"], n_simulations=100, random_seed=1, progressbar=False,
#     )
#     print(number, result.table[["test", "power", "interval_width"]].round(2))
# ```
#
# Uranium belongs to the county, so it is the number of counties that counts. The floor is compared
# within counties, and there it is the number of houses, the same in both.
#
# </details>
#
# ## References
#
# - Gelman, A. and Hill, J. (2007). *Data Analysis Using Regression and Multilevel/Hierarchical
#   Models*. Cambridge University Press. Chapter 12.
# - Gelman, A., Vehtari, A., Simpson, D. et al. (2020). Bayesian workflow. arXiv:2011.01808.
# - Price, P. N., Nero, A. V. and Gelman, A. (1996). Bayesian prediction of mean indoor radon
#   concentrations for Minnesota counties. *Health Physics* 71, 922-936.
