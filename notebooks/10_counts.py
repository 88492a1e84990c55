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
# # Counts and proportions: generalised linear mixed models
#
# **The question.** Many outcomes are no measurements. A cow falls ill or does not; a woman uses
# contraception or does not; so many birds are seen in an hour. What becomes of pooling then?
#
# **The data.** Disease in herds of cattle (Lesnoff and others 2004), contraception in districts
# of Bangladesh (1988), counts that we simulate and so know the truth of, and, briefly, the eight
# schools of Rubin (1981) and the sleep study of Belenky and others (2003).
#
# **What you will learn.** How link and family turn a linear model into one of proportions or
# counts; three ways to integrate out the group effects; odds ratios and expected outcomes; what
# partial pooling does where a group has no event at all; why the effect in a district is not the
# effect in the population; how to find overdispersion and mend it; and two relatives, known
# standard errors and a standard deviation that varies.

# %%
import os

import numpy as np
import pandas as pd

import hmlm

DRAWS = int(os.environ.get("HMLM_DRAWS", "1000"))  # of each of four chains


def sample(model):
    return model.fit(hmlm.NUTS(draws=DRAWS, tune=DRAWS), random_seed=1, progressbar=False)


# %% [markdown]
# ## 1. Proportions: disease in herds
#
# Fifteen herds of cattle were followed through four periods. Each row is a herd in a period:
# `incidence` of its `size` animals fell ill with contagious bovine pleuropneumonia.

# %%
cbpp = hmlm.load_dataset("cbpp")
cbpp.head(4)

# %% [markdown]
# Three of four animals is weaker evidence than thirty of forty, so the model is of the count, and
# knows the number of trials: `p(incidence, size)`. The probability itself lies between 0 and 1. A
# straight line does not, so the line is one of the *log odds*, $\operatorname{logit}(p) =
# \log\{p / (1 - p)\}$.

# %%
model = hmlm.Model("p(incidence, size) ~ period + (1 | herd)", cbpp, family="binomial")
print(model)

# %% [markdown]
# There is no residual variance to estimate: that of a binomial count follows from its mean.
#
# ### Five fits, side by side
#
# The likelihood of a herd is an integral over its effect, and here it has no closed form.
#
# - `hmlm.GLM()` has nothing to integrate: it ignores the herds (complete pooling), or gives each
#   a coefficient of its own (no pooling).
# - `hmlm.Laplace()` replaces the integrand by a normal curve at its peak. This is R's `glmer`.
# - `hmlm.Laplace(nodes=9)` sums over nine points around that peak: adaptive Gauss-Hermite
#   quadrature (AGQ). More exact, for one grouping factor with one effect.
# - `hmlm.NUTS()` samples the posterior.

# %%
complete = model.with_pooling("complete").fit(hmlm.GLM())
alone = model.with_pooling("none").fit(hmlm.GLM())
laplace = model.fit(hmlm.Laplace())
agq = model.fit(hmlm.Laplace(nodes=9))
bayes = sample(model)
print(bayes.status)

# %%
hmlm.compare(bayes, agq, laplace, complete, alone, groups=False)

# %% [markdown]
# - Laplace and AGQ hardly differ here. They differ most where groups are small and the outcome is
#   yes or no.
# - The standard deviation between herds is larger in the posterior: its distribution has a long
#   right tail, and the mean lies to the right of the peak that maximum likelihood finds.
# - The regression that ignores the herds gives the intercept too small a standard error.
# - Without pooling there is no common intercept: the cell is blank.
#
# ### Odds ratios
#
# A coefficient is a difference of log odds. Its exponential is an *odds ratio*: 1 means no
# difference, 0.4 that the odds are 40% of those in period 1.

# %%
hmlm.compare(bayes, agq, groups=False, scale="ratio")

# %% [markdown]
# The first row is no ratio but the odds themselves, in period 1 of an average herd. An odds ratio
# is not a ratio of probabilities, unless both are small.
#
# ### Herds under three poolings
#
# On the scale of the outcome the table has the expected proportion of each herd, averaged over
# its own periods.

# %%
THREE = [bayes, alone, complete]
names = {"NUTS": "partial", "GLM (no pooling)": "none", "GLM (complete pooling)": "complete"}
herds = hmlm.compare(*THREE, scale="response").xs("estimate", axis=1, level=1).loc["mean"]
herds = herds.droplevel(["group", "term"]).rename(columns=names)
totals = cbpp.groupby("herd", observed=True)[["incidence", "size"]].sum()
pd.concat([totals, herds.astype(float).round(3)], axis=1).loc[["4", "7", "8", "13", "14"]]

# %%
axes = hmlm.plot_groups(*THREE)

# %% [markdown]
# Herd 8 was seen in period 1 alone, and is the one whose complete-pooling average is high: only
# the first period, the worst, counts in it. The model still has an expectation for the other
# periods, from what herds have in common. On the scale of the log odds:

# %%
ax = hmlm.plot_shrinkage(*THREE)

# %% [markdown]
# ### A herd without a case
#
# Suppose that the study had begun in period 2. Two herds then have no case at all.

# %%
later = cbpp[cbpp["period"] != "1"].assign(
    period=lambda d: d["period"].cat.remove_unused_categories()
)
seen = later.groupby("herd", observed=True)[["incidence", "size"]].sum()
seen.query("size > 0 and incidence == 0")

# %%
later_model = hmlm.Model("p(incidence, size) ~ period + (1 | herd)", later, family="binomial")
later_alone = later_model.with_pooling("none").fit(hmlm.GLM())
print(later_alone.status)

# %% [markdown]
# This is *separation*. The likelihood of such a herd rises as its probability falls, and is
# highest at zero, where the log odds are minus infinity. The estimate does not exist, and the
# table leaves it blank. Under partial pooling it does exist: the other herds say which log odds
# are plausible.

# %%
later_bayes = sample(later_model)
figures = ["fit", "level", "estimate", "lower", "upper"]
both = pd.concat([hmlm.tidy(fit, scale="response") for fit in (later_alone, later_bayes)])
both.query("component == 'mean' and level in ['9', '14']")[figures].round(3)

# %% [markdown]
# Twenty healthy animals in herd 9 say more than seven in herd 14, so herd 9 is the lower of the
# two. And zero cases are not zero risk: in period 1, left out here, herd 14 was the worst of all.
#
# ## 2. Yes or no: contraception in districts
#
# Each row is a woman, with her `age` (centred), the number of living children `livch`, and
# whether she lives in a town (`urban`). Both the level and the difference between town and
# country vary from district to district.

# %%
women = hmlm.load_dataset("contraception")
formula = "use ~ age + I(age**2) + urban + livch + (urban | district)"
use = hmlm.Model(formula, women, family="bernoulli")
use_laplace = use.fit(hmlm.Laplace())
use_bayes = sample(use)
hmlm.compare(use_bayes, use_laplace, groups=False)

# %% [markdown]
# The coefficients agree. Look at the correlation: the approximate maximum lies farther out than
# the posterior mean, and comes without an interval. The posterior's interval is wide. It says that
# districts where country women use contraception more have less of a difference between town and
# country, and leaves open how strong that pattern is.

# %%
ax = hmlm.plot_shrinkage(use_bayes)

# %% [markdown]
# Many districts have no estimate of their own: only town or only country women were asked there,
# or all of one kind gave the same answer. They still have an estimate under partial pooling.
#
# ### Are the probabilities right?
#
# Of women with a probability near 0.3, about 30% should use contraception.

# %%
ax = hmlm.plot_calibration(use_bayes, random_seed=1)

# %% [markdown]
# ### In a district, and in the population
#
# Take a woman without children, of average age. What does living in a town change? Two answers:
#
# - `groups="population"`: in a district in the middle, whose effects are zero;
# - `groups="average"`: on average over districts, as they vary.

# %%
woman = pd.DataFrame({"age": 0.0, "urban": [0, 1], "livch": "0"})
answers = {g: use_bayes.predict(woman, groups=g)["estimate"] for g in ("population", "average")}
answers = pd.DataFrame(answers).T.set_axis(["country", "town"], axis=1)
odds = answers / (1 - answers)
answers.assign(odds_ratio=odds["town"] / odds["country"]).round(3)

# %% [markdown]
# The average of a curve is not the curve at the average. Below one half the logistic curve bends
# upwards, so that districts above the middle add more than those below it take away: average
# probabilities lie nearer to one half. Here the odds ratio in the population is a little nearer
# to 1 than that in a district. The more groups differ, the larger the gap. Neither is wrong: ask
# for the first to advise a district, for the second to describe the country.
#
# ## 3. Counts, and overdispersion
#
# We simulate visits to 40 sites, four before and four after some change, with a watch of 1, 2 or
# 4 hours at each visit. The truth: a rate of $e^{1} \approx 2.7$ an hour at a site in the
# middle, $-0.4$ on the log scale after the change, a standard deviation between sites of 0.5, and
# rates that also vary from visit to visit, by a gamma distribution of shape 2.

# %%
rng = np.random.default_rng(1)
J, VISITS = 40, 8
hours = rng.choice([1, 2, 4], J * VISITS)
visits = pd.DataFrame(
    {
        "site": np.repeat([f"s{j:02d}" for j in range(1, J + 1)], VISITS),
        "after": np.tile([0] * 4 + [1] * 4, J),
        "hours": hours,
    }
)
effects = np.repeat(rng.normal(0, 0.5, J), VISITS)
rate = visits["hours"] * np.exp(1.0 - 0.4 * visits["after"] + effects)
visits["seen"] = rng.poisson(rng.gamma(2.0, rate / 2.0))
visits.head(3)

# %% [markdown]
# Who watches four hours sees four times as many. That is no coefficient to estimate: the *exposure*
# enters with a coefficient of one, as `offset(log(hours))`. All else is then about the rate in an
# hour.

# %%
counts = "seen ~ after + offset(log(hours)) + (1 | site)"
poisson = sample(hmlm.Model(counts, visits, family="poisson"))
poisson.check(random_seed=1)

# %% [markdown]
# A Poisson count has a variance equal to its mean. These have more, and the check says so: they
# are spread too wide, with too many zeros and too large a maximum. The hanging rootogram shows it.
# Bars hang from the curve that the model expects; where they do not reach zero there are too few
# rows, where they pass it too many.

# %%
ax = hmlm.plot_rootogram(poisson, random_seed=1)

# %% [markdown]
# The negative-binomial family has a parameter more. Its variance is $\mu + \mu^2 / \alpha$. Of 33
# bars one or two may end outside a band of 95% by chance.

# %%
negative = sample(hmlm.Model(counts, visits, family="negative-binomial"))
ax = hmlm.plot_rootogram(negative, random_seed=1)

# %%
print(f"Checks that are not fine: {len(negative.check(random_seed=1).found)}")


def beside(**fits):
    """Estimates and 95% intervals, one column a fit."""
    columns = {}
    for name, fit in fits.items():
        table = hmlm.tidy(fit, groups=False)
        label = table["term"].where(table["component"] != "sd", "sd of " + table["term"])
        text = [f"{r.estimate:.2f} ({r.lower:.2f}, {r.upper:.2f})" for r in table.itertuples()]
        columns[name] = pd.Series(text, index=label)
    order = list(dict.fromkeys(term for column in columns.values() for term in column.index))
    return pd.DataFrame(columns).reindex(order).fillna("")


truth = {"Intercept": "1.0", "after": "-0.4", "sd of Intercept": "0.5", "alpha": "2"}
beside(poisson=poisson, negative_binomial=negative).assign(truth=pd.Series(truth))

# %% [markdown]
# What the Poisson model costs is not the estimate of the effect but its honesty: the interval of
# `after` is half as wide as it should be. It also takes part of what varies between visits for a
# difference between sites.
#
# ## 4. Two relatives
#
# ### Known standard errors: the eight schools
#
# Eight schools tried a course for a test. Each reports an effect `y` and its standard error
# `sigma`, and no raw data: a meta-analysis. `se(y, sigma)` says that the standard errors are
# known.

# %%
schools = hmlm.load_dataset("eight_schools")
eight = hmlm.Model("se(y, sigma) ~ 1 + (1 | school)", schools)
eight_bayes, eight_reml = sample(eight), eight.fit(hmlm.REML())
hmlm.compare(eight_bayes, eight_reml, groups=False)

# %%
ax = hmlm.plot_shrinkage(eight_bayes)

# %% [markdown]
# REML puts the standard deviation between schools at exactly zero: the schools are all alike, and
# school A is no better than C. The posterior does not know that. Zero is plausible, but so is 10.
# It pulls the schools together strongly, and keeps some of their order.
#
# ### A standard deviation that varies
#
# In the sleep study some people react evenly from day to day, others do not. A second formula,
# for `sigma`, says that each has a residual standard deviation of his or her own. Its scale is
# the logarithm.

# %%
sleep = hmlm.load_dataset("sleepstudy")
same = sample(hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep))
varying = sample(hmlm.Model("Reaction ~ Days + (Days | Subject); sigma ~ 1 + (1 | Subject)", sleep))
log_sigma = varying.variable("sigma_beta") + varying.variable("sigma_b_Subject")[..., 0]
low, middle, high = np.quantile(np.exp(log_sigma), [0.025, 0.5, 0.975], axis=(0, 1))
subjects = pd.Index(varying.design.blocks[0].levels, name="Subject")
sigmas = pd.DataFrame({"sigma": middle, "lower": low, "upper": high}, index=subjects)
sigmas.sort_values("sigma").iloc[[0, 1, -2, -1]].round(1)

# %%
axes = hmlm.plot_groups(varying, same, levels=["309", "335", "308", "332"])

# %% [markdown]
# Blue with its band is the model with varying standard deviations, green the one with a common one.
# The steady people, 309 and 335, have a narrow band. For the unsteady, 308 and 332, it is wide:
# their days say less about their line.
#
# ## Exercises
#
# **1.** Do the herds' counts vary more than a binomial allows? Give every row of `cbpp` an effect
# of its own, and look at its standard deviation and at that of the herds.
#
# <details><summary>Solution</summary>
#
# ```python
# rows = cbpp.assign(visit=[str(k) for k in range(len(cbpp))])
# finer = hmlm.Model(
#     "p(incidence, size) ~ period + (1 | herd) + (1 | visit)", rows, family="binomial"
# )
# print(hmlm.compare(sample(finer), bayes, groups=False))
# ```
#
# They do. The rows of one herd differ by more than chance: the disease is contagious, and animals
# that fall ill together are not independent trials. Part of what looked like a lasting difference
# between herds now belongs to single outbreaks, and the intervals of the periods are wider.
#
# </details>
#
# **2.** At which age, counted from the mean, is the use of contraception most likely? Give a 95%
# interval.
#
# <details><summary>Solution</summary>
#
# ```python
# beta = use_bayes.draws["posterior"].dataset["beta"]
# peak = -beta.sel(term="age") / (2 * beta.sel(term="I(age ** 2)"))
# print(np.quantile(peak, [0.025, 0.5, 0.975]).round(1))
# ```
#
# A parabola $a + bx + cx^2$ has its top at $-b / 2c$. Take it draw by draw: the interval of a
# ratio then needs no formula.
#
# </details>
#
# **3.** Leave the offset out of the negative-binomial model. What happens to the intercept, and
# to `alpha`?
#
# <details><summary>Solution</summary>
#
# ```python
# forgetful = sample(
#     hmlm.Model("seen ~ after + (1 | site)", visits, family="negative-binomial")
# )
# print(beside(offset=negative, forgotten=forgetful))
# ```
#
# The intercept is no longer the log of a rate in an hour but that of a count in a visit of usual
# length, so it rises. `alpha` falls: how long one watched now passes for overdispersion. The
# estimate of `after` changes little, because the hours were drawn at random. Had visits been
# longer after the change, it would be wrong.
#
# </details>
#
# **4.** How probable is it that the course in school A works better than that in school C? And
# with a prior that holds the schools closer together, `hmlm.Prior("half-normal", sigma=2)`?
#
# <details><summary>Solution</summary>
#
# ```python
# closer = sample(eight.with_priors(sd=hmlm.Prior("half-normal", sigma=2)))
# for fit in (eight_bayes, closer):
#     effect = fit.variable("b_school")[..., 0]
#     print(f"{(effect[..., 0] > effect[..., 2]).mean():.2f}")
# ```
#
# Their estimates, 28 and -3, look far apart. The standard errors are 15 and 16, and the
# probability is not near 1. A prior that holds the schools closer together brings it nearer to
# one half.
#
# </details>
#
# ## References
#
# - Belenky, G. and others (2003). Patterns of performance degradation and restoration during sleep
#   restriction and subsequent recovery. *Journal of Sleep Research* 12, 1-12.
# - Gelman, A. and Hill, J. (2007). *Data Analysis Using Regression and Multilevel/Hierarchical
#   Models*. Cambridge University Press. Chapters 14 and 15.
# - Kleiber, C. and Zeileis, A. (2016). Visualizing count data regressions using rootograms. *The
#   American Statistician* 70, 296-303.
# - Lesnoff, M. and others (2004). Within-herd spread of contagious bovine pleuropneumonia in
#   Ethiopian highlands. *Preventive Veterinary Medicine* 64, 27-40.
# - Rubin, D. B. (1981). Estimation in parallel randomized experiments. *Journal of Educational
#   Statistics* 6, 377-401.
