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
# # Alcohol use in adolescence: a first multilevel model
#
# **The question.** How does alcohol use develop between the ages of 14 and 16? Do adolescents
# differ in where they start and in how fast they change, and what do their parents and their
# friends have to do with it?
#
# **The data.** Curran, Stice and Chassin (1997) asked 82 adolescents three times, at 14, 15 and
# 16 years of age. Singer and Willett (2003, chapter 4) made their answers the standard example of
# a model for change.
#
# **What you will learn.** When rows that belong together need a multilevel model; how to write
# one down; what goes wrong with an ordinary regression; how to read the classical (REML) table
# and the Bayesian posterior, side by side; and what *partial pooling* does to the estimate of
# each adolescent.

# %%
import os

import numpy as np
import pandas as pd
from IPython.display import Markdown

import hmlm

DRAWS = int(os.environ.get("HMLM_DRAWS", "1000"))  # of each of four chains

alcohol = hmlm.load_dataset("alcohol")
alcohol.head(6)

# %% [markdown]
# Each row is one adolescent at one age. `alcuse` is the square root of a score of alcohol use,
# and `time` counts years since the age of 14. `coa` says whether a parent is an alcoholic, and
# `peer` is the square root of a score of alcohol use among friends. These last two do not change
# over time: they belong to the adolescent, not to the row.

# %%
per_person = alcohol.groupby("id").agg(
    rows=("time", "size"),
    coa=("coa", "nunique"),
    peer=("peer", "nunique"),
    ages=("time", "nunique"),
)
per_person.describe().loc[["min", "max"]]

# %% [markdown]
# ## When, and why
#
# An ordinary regression takes every row as a new, independent piece of information. Here that is
# wrong: three rows of one adolescent resemble each other. How much, the *intraclass correlation*
# (ICC) says. It is the share of the variance that lies between adolescents, and equally the
# correlation of two rows of the same adolescent. A model with nothing but a mean and a deviation
# for each adolescent gives it:

# %%
means = hmlm.Model("alcuse ~ 1 + (1 | id)", alcohol).fit(hmlm.REML())
between, within = means.estimates["sd_id"][0] ** 2, means.estimates["sigma"] ** 2
icc = between / (between + within)
Markdown(
    f"Variance between adolescents: {between:.3f}; within adolescents: {within:.3f}; "
    f"**ICC: {icc:.2f}**."
)

# %% [markdown]
# A multilevel model is called for when
#
# - rows belong to groups, and rows of one group are alike (here: the ICC is far from zero);
# - the groups are a sample, and we want to speak of the population that they come from;
# - some predictors belong to the rows (`time`) and others to the groups (`coa`, `peer`);
# - a group has too few rows to stand on its own (here: three points for a straight line).
#
# There are three ways to treat groups:
#
# | | what it assumes | what it costs |
# |:--|:--|:--|
# | **complete pooling** | all adolescents are alike | false standard errors |
# | **no pooling** | each adolescent is a world of its own | three points a line: mostly noise |
# | **partial pooling** | they differ, but are of one population | a model of that population |
#
# ## The model in equations
#
# Two levels. Within adolescent $j$, alcohol use at occasion $i$ follows a straight line in time:
#
# $$\text{alcuse}_{ij} = \pi_{0j} + \pi_{1j}\, \text{time}_{ij} + \varepsilon_{ij}, \qquad
# \varepsilon_{ij} \sim \operatorname{Normal}(0, \sigma^2).$$
#
# Between adolescents, the intercepts (use at 14) and the slopes (growth a year) vary. Part of
# that is explained by `coa` and `peer`, the rest is left to chance:
#
# $$\begin{aligned}
# \pi_{0j} &= \beta_0 + \beta_1\, \text{coa}_j + \beta_2\, \text{peer}_j + b_{0j} \\
# \pi_{1j} &= \beta_3 + b_{1j} \end{aligned} \qquad
# \begin{pmatrix} b_{0j} \\ b_{1j} \end{pmatrix} \sim \operatorname{Normal}(0, D).$$
#
# Put the second level into the first and you have one equation with a *population* part and a
# *group* part. That is what the formula says: `coa + peer + time` for the population, `(time |
# id)` for what varies from one `id` to the next. The intercept is understood in both.

# %%
model = hmlm.Model("alcuse ~ coa + peer + time + (time | id)", alcohol)
model

# %% [markdown]
# The last lines are the priors. They are weak: their scales are taken from the spread of the
# outcome and of the predictors, so that they rule out the absurd and little else.
# `model.with_priors(...)` changes them, and `model.build()` returns the whole as a PyMC model.
#
# ## The corresponding multiple regression, and what is wrong with it
#
# Take away the group part and what is left is a multiple linear regression: *complete pooling*.

# %%
pooled = model.with_pooling("complete").fit(hmlm.OLS())
print(pooled.summary())

# %% [markdown]
# The coefficients look sensible. The standard errors are not, because they rest on 246
# independent rows. Set them next to those of the multilevel model:

# %%
reml = model.fit(hmlm.REML())


def standard_errors(fit):
    table = hmlm.tidy(fit, groups=False).query("component == 'population'")
    return table.set_index("term")["std_error"]


errors = pd.DataFrame({"regression": standard_errors(pooled), "multilevel": standard_errors(reml)})
errors["regression / multilevel"] = errors["regression"] / errors["multilevel"]
errors.round(3)

# %% [markdown]
# - For `coa` and `peer`, which differ *between* adolescents, the regression's standard errors are
#   **too small**. It counts every adolescent three times, as if the study had asked 246 of them
#   about their parents.
# - For `time`, which varies *within* adolescents, its standard error is **too large**. Each
#   adolescent is compared with himself or herself, so that lasting differences between
#   adolescents cancel; the regression leaves them in its residual.
#
# ## The classical multilevel fit
#
# `hmlm.REML()` maximises the restricted likelihood. The table has the layout of R's `nlme`, and
# the numbers of `lme(alcuse ~ coa + peer + time, random = ~ time | id)`.

# %%
print(reml.summary())

# %% [markdown]
# Read it from top to bottom:
#
# - **Random effects.** The standard deviations of intercepts and slopes between adolescents, with
#   their correlation, and the residual standard deviation within adolescents.
# - **Fixed effects.** The average line, with standard errors. `DF` follows the level at which a
#   predictor varies: `coa` and `peer` are judged by the number of adolescents, `time` by the
#   number of rows.
# - **Standardized residuals.** Roughly symmetric, and none very far out.
#
# ## The posterior next to it
#
# The Bayesian fit samples the same likelihood, with the priors above, instead of maximising it.
# What comes back is not one best value for each parameter but a sample of plausible values: the
# posterior.

# %%
bayes = model.fit(hmlm.NUTS(draws=DRAWS, tune=DRAWS), random_seed=1, progressbar=False)
print(bayes.status)

# %%
hmlm.compare(bayes, reml, pooled, groups=False)

# %% [markdown]
# Compare the columns:
#
# - For the **coefficients** both multilevel fits agree closely. With priors this weak, they
#   should.
# - For the **standard deviations** REML gives a best value and no honest standard error: their
#   distribution is skewed and bounded by zero. The posterior has an interval for each of them,
#   and for the correlation. That interval is wide: three points a person say little about how
#   intercepts and slopes go together.
# - `R-hat` near 1 and a large `ESS` (the number of independent draws that the sample is worth)
#   say that the sampler did its work.
#
# ## One panel for each adolescent
#
# The orange lines fit each adolescent alone (no pooling), the dashed grey line is the regression
# (complete pooling), and the blue line with its 95% band is the multilevel model's posterior;
# REML is dotted.

# %%
alone = model.with_pooling("none").fit(hmlm.OLS())
axes = hmlm.plot_groups(bayes, reml, alone, pooled)
# %% [markdown]
# The blue line is a compromise. It stays near the adolescent's own points where these are clear,
# and moves towards the line of others with the same parents and friends where they are not. Three
# points leave much open, as the band shows.
#
# ## What partial pooling does
#
# The same for all 82, as intercepts and slopes. Each arrow starts at the adolescent's own
# estimate and ends at the estimate under partial pooling. The ellipses hold 50, 90 and 95% of the
# adolescents in the population, as the model estimates it for those with average predictors.

# %%
ax = hmlm.plot_shrinkage(bayes, alone, pooled)
# %% [markdown]
# The estimates contract, most of all those far out. This is called *shrinkage*, and it is no
# distortion: extreme estimates from three points are extreme partly by chance. How much of the
# spread of the separate estimates was noise?

# %%
spread = pd.DataFrame(
    {
        "alone": hmlm.tidy(alone).query("component == 'total'").groupby("term")["estimate"].std(),
        "partially pooled": hmlm.tidy(bayes)
        .query("component == 'line'")
        .groupby("term")["estimate"]
        .std(),
    }
)
spread.round(3)

# %% [markdown]
# ## What the numbers say

# %%
posterior = bayes.draws["posterior"].dataset


def describe(values, digits=2):
    low, high = np.quantile(values, [0.025, 0.975])
    return (
        f"{float(np.mean(values)):.{digits}f} (95% interval {low:.{digits}f} to {high:.{digits}f})"
    )


beta = posterior["beta"]
slope = beta.sel(term="time")
sd = posterior["sd_id"]
sigma = posterior["sigma"]
residual_icc = sd.sel(id_term="Intercept") ** 2 / (sd.sel(id_term="Intercept") ** 2 + sigma**2)

at_14 = bayes.predict(
    pd.DataFrame({"coa": [0, 1], "peer": alcohol["peer"].mean(), "time": 0}), groups="population"
)
draws = np.random.default_rng(1).standard_normal(slope.shape)
own_slopes = slope + sd.sel(id_term="time") * draws

Markdown(
    f"""
- **At 14**, with average friends, expected alcohol use (on the square-root scale) is
  {at_14["estimate"][0]:.2f} without an alcoholic parent and {at_14["estimate"][1]:.2f} with one.
- **Growth**: alcohol use rises by {describe(slope)} a year on average.
- **Parents**: children of alcoholics are higher by {describe(beta.sel(term="coa"))},
  at every age, given the same friends.
- **Friends**: one unit more of `peer` goes with {describe(beta.sel(term="peer"))} more.
- **Differences that remain** between adolescents: the standard deviation of intercepts is
  {describe(sd.sel(id_term="Intercept"))}, that of slopes {describe(sd.sel(id_term="time"))}.
- **Intraclass correlation** at 14, of what the predictors leave unexplained:
  {describe(residual_icc)}. Without predictors it was {icc:.2f}.
- **Not everyone drinks more each year**: with slopes that vary so much around their mean, about
  {float((own_slopes < 0).mean()):.0%} of adolescents have one below zero.
"""
)

# %% [markdown]
# None of this is about cause. Friends are chosen, and an adolescent who drinks may choose friends
# who drink.
#
# ## Exercises
#
# **1.** Do adolescents whose friends drink more also grow faster? Add the interaction of `peer`
# and `time`, and compare with the model above.
#
# <details><summary>Solution</summary>
#
# ```python
# faster = hmlm.Model("alcuse ~ coa + peer * time + (time | id)", alcohol)
# ml = [m.fit(hmlm.ML()) for m in (model, faster)]
# print(hmlm.compare(*ml, groups=False))
# print([round(fit.aic, 1) for fit in ml])
# ```
#
# The two models have different fixed effects, so they are fitted by ML: restricted likelihoods
# would not compare. The interaction is negative: those whose friends drink more start higher and
# grow *less*, so that the gap narrows. The evidence is weak. The AIC prefers the interaction by
# little, and its interval includes zero. Singer and Willett keep it.
#
# </details>
#
# **2.** Count time from the age of 15 instead of 14. Which parameters change, which do not, and
# why?
#
# <details><summary>Solution</summary>
#
# ```python
# from_15 = alcohol.assign(time15=alcohol["time"] - 1)
# shifted = hmlm.Model("alcuse ~ coa + peer + time15 + (time15 | id)", from_15).fit(hmlm.REML())
# print(shifted.summary())
# print(shifted.log_likelihood - reml.log_likelihood)
# ```
#
# The likelihood, the slopes and the residual stay as they are: it is the same model. The
# intercept is now the use at 15, so its mean, its standard deviation and its correlation with the
# slope are new. At 15 those who grow faster have had a year to get ahead, and the correlation
# becomes positive. A correlation of intercepts and slopes means nothing until you say where time
# is zero.
#
# </details>
#
# **3.** A new adolescent comes to the clinic, 16 years old, no alcoholic parent, average friends.
# Predict his or her alcohol use, and compare the interval with that for the *average* adolescent
# of this kind.
#
# <details><summary>Solution</summary>
#
# ```python
# visitor = pd.DataFrame({"coa": [0], "peer": alcohol["peer"].mean(), "time": [2]})
# average = bayes.predict(visitor, groups="population")
# newcomer = bayes.predict(visitor, groups="new", kind="response", random_seed=1)
# print(pd.concat([average, newcomer], keys=["average", "newcomer"]).round(2))
# ```
#
# The estimate is the same, the interval several times as wide. The average is known well. One
# adolescent differs from it by an own intercept and slope, and one occasion from that by the
# residual.
#
# </details>
#
# **4.** Which of the 82 adolescents is moved most by partial pooling, and why that one?
#
# <details><summary>Solution</summary>
#
# ```python
# places = {"index": "level", "columns": "term", "values": "estimate"}
# own = hmlm.tidy(alone).query("component == 'total'").pivot(**places)
# line = hmlm.tidy(bayes).query("component == 'line'").pivot(**places)
# moved = (line - own).assign(distance=lambda d: np.hypot(d["Intercept"], d["time"]))
# most = moved["distance"].astype(float).idxmax()
# print(moved.loc[most].astype(float).round(2))
# print(alcohol.query("id == @most"))
# ```
#
# One whose three points make a line far from everyone else's: the start is much higher than
# parents and friends lead one to expect, and the line falls steeply where the others rise. Three
# points are weak evidence for something so unusual.
#
# </details>
#
# ## References
#
# - Curran, P. J., Stice, E. and Chassin, L. (1997). The relation between adolescent alcohol use
#   and peer alcohol use: a longitudinal random coefficients model. *Journal of Consulting and
#   Clinical Psychology* 65, 130-140.
# - Singer, J. D. and Willett, J. B. (2003). *Applied Longitudinal Data Analysis*. Oxford
#   University Press. Chapter 4.
