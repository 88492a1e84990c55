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
# # Three levels: persons in families in states, and years in children in schools
#
# **The question.** Groups have groups. Persons live in families, and families in states; a child is
# tested year after year, and sits in a school. At which level do outcomes differ? And what happens
# if one of the levels is forgotten?
#
# **The data.** First some that we simulate, so that we know the truth. Then the mathematics of
# 1,721 children in 60 urban primary schools, from kindergarten to grade 5 (Raudenbush and Bryk
# 2002, chapter 8).
#
# **What you will learn.** How to write three levels down, on paper and as a formula; how well REML
# and the posterior recover what was put in; variance shares and intraclass correlations with more
# than one kind of group; that a family is pooled toward its state and the state toward the country;
# that forgetting a level costs the *predictors of that level* their standard errors; and how growth
# differs between children and between schools.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown

import hmlm
from hmlm import palette

DRAWS = int(os.environ.get("HMLM_DRAWS", "1000"))  # of each of four chains
nuts = hmlm.NUTS(draws=DRAWS, tune=DRAWS)

# %% [markdown]
# ## 1. A world of three levels
#
# Person $i$ lives in family $j$ in state $k$. Each level has a covariate of its own: `age` belongs
# to the person, `income` to the family, `policy` to the state. (All are standardised.)
#
# $$\begin{aligned}
# \text{persons:}  && y_{ijk} &\sim \operatorname{Normal}(\alpha_{jk} +
#   \beta_1\, \text{age}_{ijk},\; \sigma^2) \\
# \text{families:} && \alpha_{jk} &\sim \operatorname{Normal}(\delta_k +
#   \beta_2\, \text{income}_{jk},\; \tau_\text{family}^2) \\
# \text{states:}   && \delta_k &\sim \operatorname{Normal}(\beta_0 +
#   \beta_3\, \text{policy}_k,\; \tau_\text{state}^2)
# \end{aligned}$$
#
# Read from below: a state has a level, families scatter about that of their state, and persons
# about that of their family. That is also the order in which to simulate it.

# %%
STATES, FAMILIES, PERSONS = 25, 8, 3
TRUTH = {
    "Intercept": 2.0,
    "age": 0.5,
    "income": 0.4,
    "policy": -0.3,
    "sd of states": 0.5,
    "sd of families": 0.8,
    "sigma": 1.0,
}


def simulate(seed):
    rng = np.random.default_rng(seed)
    state = np.repeat(np.arange(STATES), FAMILIES * PERSONS)  # of each person
    family = np.repeat(np.arange(STATES * FAMILIES), PERSONS)
    policy = rng.normal(size=STATES)
    income = rng.normal(size=STATES * FAMILIES)
    age = rng.normal(size=len(state))

    state_level = TRUTH["Intercept"] + TRUTH["policy"] * policy
    state_level = state_level + rng.normal(0, TRUTH["sd of states"], STATES)
    family_level = np.repeat(state_level, FAMILIES) + TRUTH["income"] * income
    family_level = family_level + rng.normal(0, TRUTH["sd of families"], STATES * FAMILIES)
    y = family_level[family] + TRUTH["age"] * age + rng.normal(0, TRUTH["sigma"], len(state))
    return pd.DataFrame(
        {
            "state": [f"s{k + 1:02d}" for k in state],
            "family": [f"f{j % FAMILIES + 1}" for j in family],
            "age": age,
            "income": income[family],
            "policy": policy[state],
            "y": y,
        }
    )


people = simulate(4)
people.head(4).round(2)

# %% [markdown]
# Families are numbered anew in each state: `f1` of state `s01` and `f1` of `s02` have nothing to do
# with each other. The slash says so. `(1 | state/family)` is short for `(1 | state) + (1 |
# state:family)`, an effect for each state and one for each *family of a state*.

# %%
covariates = "y ~ age + income + policy"
model = hmlm.Model(f"{covariates} + (1 | state/family)", people)
model

# %% [markdown]
# hmlm has found the levels: 600 persons in 200 families, each family in one state. Had families
# names that occur once only, `(1 | state) + (1 | family)` would be the same model:

# %%
unique = people.assign(family=people["state"] + people["family"])
reml = model.fit(hmlm.REML())
same = hmlm.Model(f"{covariates} + (1 | state) + (1 | family)", unique).fit(hmlm.REML())
print(f"{reml.log_likelihood:.6f} {same.log_likelihood:.6f}")

# %% [markdown]
# But with `f1` to `f8` in every state, and without the slash, the model would be about eight
# families who live in all states (exercise 1).
#
# ### Is the truth recovered?

# %%
bayes = model.fit(nuts, random_seed=1, progressbar=False)
print(bayes.status)


def beside_truth(fit, intervals=None):
    """Estimates and 95% intervals beside what was put in."""
    table = hmlm.tidy(fit, groups=False) if intervals is None else intervals
    names = {"state": "sd of states", "state:family": "sd of families"}
    table = table.assign(parameter=table["group"].map(names).where(table["group"] != ""))
    table = table.assign(parameter=table["parameter"].fillna(table["term"])).set_index("parameter")
    table["truth"] = pd.Series(TRUTH)
    inside = table["truth"].between(table["lower"], table["upper"])
    return table.assign(covers=inside)[["truth", "estimate", "lower", "upper", "covers"]]


both = {
    "NUTS": beside_truth(bayes),
    "REML": beside_truth(reml, reml.confint("profile")).drop(columns="truth"),
}
pd.concat(both, axis=1).round(2)

# %% [markdown]
# Both find what was put in, and agree. Look at the *widths*: what belongs to the person (`age`,
# `sigma`) is known from 600 rows, what belongs to the family from 200, and what belongs to the
# state from 25. It is the number of units at a predictor's own level that counts. (The intervals of
# REML are profile likelihoods: a standard error would not do for a standard deviation.)
#
# ### Where is the variance?

# %%
ax = hmlm.plot_variance(bayes)

# %%
icc = hmlm.intraclass_correlation(bayes).query("kind != 'unadjusted'")
true_state, true_family, true_rows = (
    TRUTH[name] ** 2 for name in ("sd of states", "sd of families", "sigma")
)
total = true_state + true_family + true_rows
icc["truth"] = np.array([true_state, true_family, true_state + true_family]) / total
icc[["group", "kind", "truth", "estimate", "lower", "upper"]].round(2)

# %% [markdown]
# With three levels there are three correlations, and it pays to say which is meant. Of what the
# covariates leave unexplained,
#
# - `state`, adjusted: the share that lies between states, and the correlation of two persons of one
#   state *but of different families*;
# - `state:family`, adjusted: the share that lies between families of a state;
# - `state:family`, same level: the correlation of two persons of the *same family*. They share the
#   state as well, so this is the sum of the two.
#
# ### Pooled twice
#
# A family of three has a noisy mean. It is drawn toward its state's level, and that in turn toward
# the country's. Here are six states. We take from each outcome what the covariates say, so that
# what is left are the levels themselves.

# %%
beta = bayes.variable("beta").mean(axis=(0, 1))
left = people["y"] - people[["age", "income", "policy"]].to_numpy() @ beta[1:]
raw = left.groupby([people["state"], people["family"]]).mean()
draws = bayes.variable("beta")[..., :1] + bayes.variable("b_state")[..., 0]
state_names, pairs = (list(block.levels) for block in model.design.blocks)
state_estimate = pd.Series(draws.mean(axis=(0, 1)), index=state_names)
of_family = pd.Series(bayes.variable("b_state:family")[..., 0].mean(axis=(0, 1)), index=pairs)

chosen = state_estimate.sort_values().index[[0, 5, 10, 14, 19, 24]]
figure, ax = plt.subplots(figsize=(9, 4), layout="constrained")
for place, state in enumerate(chosen):
    x = place + np.linspace(-0.32, 0.32, FAMILIES)
    own = raw[state].to_numpy()
    pooled = np.array([state_estimate[state] + of_family[f"{state}:{f}"] for f in raw[state].index])
    ends = x[0] - 0.08, x[-1] + 0.08
    ax.hlines(own.mean(), *ends, color=palette.NONE, label="state: mean of its families")
    ax.hlines(state_estimate[state], *ends, color=palette.PARTIAL, label="state: pooled")
    ax.vlines(x, own, pooled, color=palette.GREY, linewidth=0.7, zorder=1)
    ax.scatter(
        x, own, 22, facecolor="none", edgecolor=palette.NONE, label="family: mean of its persons"
    )
    ax.scatter(x, pooled, 22, color=palette.PARTIAL, label="family: pooled")
ax.axhline(beta[0], color=palette.INK, linewidth=0.8, linestyle="--")
ax.set(ylabel="y, less the covariates", xticks=range(len(chosen)), xticklabels=chosen)
ax.spines[["top", "right"]].set_visible(False)
handles, labels = (part[:4] for part in ax.get_legend_handles_labels())
legend = figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8)

# %% [markdown]
# In every state the families move toward the blue line of *their* state, not toward the dashed line
# of the country. The states' lines themselves move there: blue lies between orange and dashed. A
# model of families alone would draw every family straight to the dashed line.
#
# ### Predicting at each level
#
# Someone of average covariates; what do we expect? It depends on what we know of where they live.

# %%
known = pd.DataFrame(
    {"state": chosen[-1], "family": ["f1"], "age": 0.0, "income": 0.0, "policy": 0.0}
)
answers = {
    "a family we know": bayes.predict(known),
    "a new family in a state we know": bayes.predict(
        known, groups={"state:family": "new"}, random_seed=1
    ),
    "a new family in a new state": bayes.predict(known, groups="new", random_seed=1),
}
pd.concat(answers).droplevel(1).round(2)

# %% [markdown]
# ### What goes wrong when a level is left out
#
# Two shorter models: one without families, one without states.

# %%
no_family = hmlm.Model(f"{covariates} + (1 | state)", people)
no_state = hmlm.Model(f"{covariates} + (1 | state:family)", people)
shorter = [each.fit(nuts, random_seed=1, progressbar=False) for each in (no_family, no_state)]
parts = {"all levels": bayes, "no families": shorter[0], "no states": shorter[1]}
wide = {name: beside_truth(fit)[["estimate", "lower", "upper"]] for name, fit in parts.items()}
pd.concat({name: t["estimate"] for name, t in wide.items()}, axis=1).reindex(list(TRUTH)).round(2)

# %% [markdown]
# The coefficients are hardly touched. The variance is: what a level does not get, its neighbours
# take. Without families it goes to `sigma` and a little to the states; without states, to the
# families. And with the variance go the standard errors:

# %%
widths = {name: t["upper"] - t["lower"] for name, t in wide.items()}
pd.concat(widths, axis=1).loc[["age", "income", "policy"]].round(2)

# %% [markdown]
# These are widths of the 95% intervals. Without families that of `income` is narrower: three
# persons of one family now count as three pieces of information about income, though they have only
# one. Without states the same happens to `policy`. Narrower is not better; it is *false*, as only
# repetition can show. We make the world anew 80 times, fit each by REML, and count how often the
# 95% interval holds the truth.

# %%
terms = {"all levels": "(1 | state/family)", "no families": "(1 | state)"}
terms["no states"] = "(1 | state:family)"
counts = []
for seed in range(80):
    world = simulate(1000 + seed)
    for name, term in terms.items():
        fit = hmlm.Model(f"{covariates} + {term}", world).fit(hmlm.REML())
        table = hmlm.tidy(fit, groups=False).query("component == 'population'").set_index("term")
        inside = pd.Series(TRUTH).reindex(table.index).between(table["lower"], table["upper"])
        counts.append(inside.rename(name))
coverage = pd.concat(counts, axis=1).T.groupby(level=0).mean()
coverage[["age", "income", "policy"]].reindex(list(terms)).astype(float).round(2)

# %% [markdown]
# Of 80 worlds, a share of 0.95 has a standard error of 0.02. With all levels the intervals hold
# about what they promise. Each shorter model fails at one predictor: **that of the level it has
# left out**. How badly depends on how much varies at the level and on how many units of the level
# below it holds: three persons of a family do some harm, eight families of a state much more. For a
# policy this matters most, since it is where decisions are made.
#
# The data can tell. `check` compares them with what the model would have produced:

# %%
found = shorter[0].check(random_seed=1).found
found[["check", "group", "term", "observed", "lower", "upper", "verdict"]].round(2)

# %% [markdown]
# Rows that follow each other are more alike than the model without families allows: they are
# members of one family. (The weaker finding has the same cause: there are 200 incomes, not 600, so
# that chance makes larger patterns along `income` than this model expects.) A likelihood-ratio test
# says it too:

# %%
tests = {
    name: hmlm.likelihood_ratio_test(short.fit(hmlm.REML()), reml)
    for name, short in {"families": no_family, "states": no_state}.items()
}
table = pd.concat(tests).droplevel(1)[["df", "statistic", "p_value", "method"]]
table.assign(p_value=table["p_value"].map("{:.0e}".format)).round(1)

# %% [markdown]
# ## 2. Years in children in schools
#
# Now real data. A child was tested in up to six years; `year` counts from the middle of the study.
# The lowest level is the *test*, the middle one the child, the highest the school.

# %%
maths = hmlm.load_dataset("egsingle")
maths[["school", "child", "year", "math", "lowinc", "black", "hispanic"]].head(3)

# %%
print(maths[["school", "child"]].nunique().to_dict(), f"{len(maths)} tests")
tests_of_child = maths.groupby("child", observed=True).size()
print("Tests of a child:", tests_of_child.value_counts().sort_index().to_dict())
print(
    "Schools of a child, at most:", maths.groupby("child", observed=True)["school"].nunique().max()
)

# %% [markdown]
# Each child has one school, so children are nested in schools, and since the labels of children
# occur once only, no slash is needed. Both the level and the growth may differ, between children
# and between schools:

# %%
growth = hmlm.Model("math ~ year + (year | school) + (year | child)", maths)
growth_reml = growth.fit(hmlm.REML())
short_run = hmlm.NUTS(draws=min(DRAWS, 800), tune=400, chains=2)
growth_bayes = growth.fit(short_run, random_seed=1, progressbar=False)
print(growth_bayes.status)

# %%
hmlm.compare(growth_bayes, growth_reml, groups=False)

# %% [markdown]
# Some hundred draws are enough where the effects of 1,721 children are integrated out. Read the
# standard deviations of `year`: children of one school differ in their growth about as much as
# schools do. For level it is otherwise: there, children differ twice as much as schools. And both
# correlations are positive: who is ahead in the middle of the study has grown faster.
#
# ### Lines of schools, lines of children

# %%
axes = hmlm.plot_groups(growth_bayes, growth_reml, group="school")

# %% [markdown]
# Each panel is a school with all its tests, and the line of the school. The points scatter far
# about it, because children differ so much. Take children instead:

# %%
few = tests_of_child.index[tests_of_child == 2][:2]
many = tests_of_child.index[tests_of_child == 6][:2]
axes = hmlm.plot_groups(
    growth_bayes, growth_reml, group="child", levels=[*few, *many], size=(9, 2.8)
)

# %% [markdown]
# (In these panels the effect of the child's school is left out, so a line may lie beside its
# points: what is missing is how the school differs from the average one.) The first two children
# have two tests, the others six: the band of those with two is wider, above all where they were not
# tested.
#
# ### Where do schools and children differ?

# %%
split = hmlm.split_variance(growth_bayes).set_index(["component", "group"]).iloc[:-1]
split[["share", "share_lower", "share_upper"]].round(2)

# %% [markdown]
# Half of the variance of the tests is that children grow older. Of the rest, more than half lies
# between children of a school. But lines that fan out differ more at their ends, so that the shares
# depend on the year:

# %%
years = [-2.5, 0.0, 2.5]
by_year = hmlm.intraclass_correlation(growth_bayes, at={"year": years})
by_year["label"] = by_year["group"] + ", " + by_year["kind"]
by_year.pivot(index="at", columns="label", values="estimate").loc[
    [f"year={year:g}" for year in years]
].round(2)

# %% [markdown]
# In the first year children are still close together, and more of what differs is chance. Two tests
# of the *same child* correlate highly (`child, same level`), two tests of different children of the
# *same school* (`school, adjusted`) much less.

# %%
ax = hmlm.plot_caterpillar(growth_bayes, group="school", column="year", size=(6, 7.5))

# %% [markdown]
# All 60 schools by growth in a year. Many intervals overlap: a league table from this would be
# confident about its ends and arbitrary in between.
#
# ### Predictors at two levels
#
# `lowinc` is the percentage of pupils of low income, a predictor of the *school*; `black` and
# `hispanic` belong to the *child*. Does `lowinc` explain levels, or growth, or both?

# %%
pupils = maths.assign(lowinc=(maths["lowinc"] - maths["lowinc"].mean()) / 10)  # tens of percent
context = hmlm.Model(
    "math ~ year * lowinc + black + hispanic + (year | school) + (year | child)", pupils
)
context_reml = context.fit(hmlm.REML())
print(context_reml.summary())

# %%
sds = {
    name: hmlm.tidy(fit, groups=False).query("component == 'sd'").set_index(["group", "term"])
    for name, fit in {"before": growth_reml, "after": context_reml}.items()
}
pd.concat({name: table["estimate"] for name, table in sds.items()}, axis=1).assign(
    variance_left=lambda d: (d["after"] / d["before"]) ** 2
).round(2)

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for ax, column in zip(axes, ("Intercept", "year"), strict=True):
    hmlm.plot_group_predictor(context_reml, "lowinc", group="school", column=column, ax=ax)
    ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# Poorer schools are lower in the middle of the study, and their children grow less in a year, so
# the gap widens. The predictors explain about half of how *levels* differ between schools, and a
# sixth of how *growth* does. Between children of one school almost everything is left to explain.
#
# ## What to say

# %%
posterior = growth_bayes.draws["posterior"].dataset
slope = posterior["beta"].sel(term="year").to_numpy().ravel()
sd_child, sd_school = (
    growth_bayes.variable(f"sd_{name}").reshape(-1, 2) for name in ("child", "school")
)


def describe(values, digits=2):
    low, high = np.quantile(values, [0.025, 0.975])
    return f"{np.mean(values):.{digits}f} (95% interval {low:.{digits}f} to {high:.{digits}f})"


Markdown(
    f"""
- **Growth** in a year is {describe(slope)} on average, over schools and children.
- **Levels** differ between children of a school by a standard deviation of
  {describe(sd_child[:, 0])}, between schools by {describe(sd_school[:, 0])}.
- **Growth differs** between schools by {describe(sd_school[:, 1], 3)} and between children of a
  school by {describe(sd_child[:, 1], 3)}.
"""
)

# %% [markdown]
# ## Exercises
#
# **1.** Forget the slash: fit `(1 | state) + (1 | family)` to `people`, where `f1` to `f8` occur in
# every state. What does the model think a family is, and what does it find?
#
# <details><summary>Solution</summary>
#
# ```python
# wrong = hmlm.Model(f"{covariates} + (1 | state) + (1 | family)", people)
# print(wrong)
# print(wrong.fit(hmlm.REML()).summary())
# ```
#
# It takes `f1` of all states for one family of 75 persons: eight families, *crossed* with states.
# Being first on the list means nothing, so they hardly differ: the standard deviation between them
# is about zero, and the variance of the real families goes to `sigma`. The printed model would have
# told: look at the numbers of groups and rows. Safest are labels that occur once only.
#
# </details>
#
# **2.** You have money for 600 persons. Is it better, for the effect of `policy`, to have 50
# states with 4 families, or 25 with 8? And 25 states with 24 families of one person?
#
# <details><summary>Solution</summary>
#
# ```python
# def error_of_policy(states, families, persons):
#     total = TRUTH["sd of states"] ** 2 + TRUTH["sd of families"] ** 2 / families
#     total = total + TRUTH["sigma"] ** 2 / (families * persons)
#     return (total / states) ** 0.5
#
#
# for design in ((25, 8, 3), (50, 4, 3), (25, 24, 1)):
#     print(design, round(error_of_policy(*design), 3))
# ```
#
# The mean of a state has variance $\tau_s^2 + \tau_f^2 / J + \sigma^2 / (Jn)$, with $J$ families of
# $n$ persons, and the standard error of a standardised predictor of states is about its root over
# that of the number of states. More states help most, since nothing else divides $\tau_s^2$. More
# families with one person each help a little. `hmlm.plan_power` does this by simulation, for any
# model.
#
# </details>
#
# **3.** Leave the *school* out of the model with `lowinc`. Which standard error suffers?
#
# <details><summary>Solution</summary>
#
# ```python
# schoolless = hmlm.Model(
#     "math ~ year * lowinc + black + hispanic + (year | child)", pupils
# ).fit(hmlm.REML())
# print(hmlm.compare(context_reml, schoolless, groups=False))
# ```
#
# Those of `lowinc` and `year:lowinc`, which belong to the school, and those of the intercept and
# `year`, averages over schools. `lowinc` now seems known from 1,721 children instead of 60 schools.
#
# </details>
#
# **4.** Do children really grow differently, once schools do? Compare with a model in which
# children differ in level only.
#
# <details><summary>Solution</summary>
#
# ```python
# parallel = hmlm.Model("math ~ year + (year | school) + (1 | child)", maths).fit(hmlm.REML())
# test = hmlm.likelihood_ratio_test(parallel, growth_reml)
# print(test[["df", "statistic", "p_value", "method"]])
# print([round(hmlm.tidy(f).query("term == 'sigma'")["estimate"].iloc[0], 3)
#        for f in (parallel, growth_reml)])
# ```
#
# They do. A variance and a covariance are tested, and the variance is at the edge of what is
# possible, hence the mixture. Without slopes of their own the children's growth is left in the
# residual, which is larger.
#
# </details>
#
# ## References
#
# - Goldstein, H., Browne, W. and Rasbash, J. (2002). Partitioning variation in multilevel models.
#   *Understanding Statistics* 1, 223-231.
# - Moerbeek, M. (2004). The consequence of ignoring a level of nesting in multilevel analysis.
#   *Multivariate Behavioral Research* 39, 129-149.
# - Raudenbush, S. W. and Bryk, A. S. (2002). *Hierarchical Linear Models*, second edition. Sage.
#   Chapter 8.
