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
# # Predictors of groups: uranium in the soil and radon in the house
#
# **The question.** Counties differ in how much radon their houses have. Why? And if we know why,
# what can we say of a county in which nobody has measured?
#
# **The data.** Radon in 919 houses in 85 counties of Minnesota (Price, Nero and Gelman 1996), with
# the uranium in the soil of each county. Gelman and Hill (2007, chapter 12) made them the standard
# example of a *group-level predictor*: a predictor that belongs to the group, not to the row.
#
# **What you will learn.** How a group-level predictor explains variance *between* groups; that
# groups are then pooled toward a regression line instead of a mean; why R² needs a figure for
# each level; how to predict a group that was never seen; and what to do with a predictor of the
# rows, such as the floor, that also differs between groups: the between, the within and the
# contextual effect.

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


def sample(formula, data):
    return hmlm.Model(formula, data).fit(nuts, random_seed=1, progressbar=False)


def regress(formula, data, pooling):
    return hmlm.Model(formula, data).with_pooling(pooling).fit(hmlm.OLS())


radon = hmlm.load_dataset("radon")
counties = radon.groupby("county", observed=True).agg(
    houses=("floor", "size"),
    values_of_uranium=("log_uranium", "nunique"),
    log_uranium=("log_uranium", "first"),
    share_on_first_floor=("floor", "mean"),
)
counties.describe().loc[["count", "min", "50%", "max"]].round(2)

# %% [markdown]
# The table has a row for each county. `log_uranium` has *one* value in each of them, so there are
# 919 rows but only 85 pieces of information about uranium. `floor` (0 for the basement, 1 for the
# first floor) belongs to the house. Its *mean* in a county, the last column, belongs to the county
# again. We come back to it.
#
# ## Without the predictor: pooled toward a mean

# %%
plain = sample("log_radon ~ floor + (1 | county)", radon)
print(plain.summary())

# %% [markdown]
# Counties differ: their intercepts (the expected log radon in a basement) have a standard
# deviation of a third. The model explains none of it. It says that counties come from one
# population, and draws each toward the mean of that population. Do we know better?

# %%
alone = regress("log_radon ~ floor + (1 | county)", radon, "none")


def lines(fit, component):
    """The intercept of each county's own line."""
    table = hmlm.tidy(fit).query("component == @component and term == 'Intercept'")
    return table.set_index("level")["estimate"].reindex(counties.index).astype(float)


counties["no pooling"] = lines(alone, "total")
counties["pooled toward the mean"] = lines(plain, "total")
counties[["no pooling", "pooled toward the mean"]].corrwith(counties["log_uranium"]).round(2)

# %% [markdown]
# We do. The estimates of this model, which has never heard of uranium, correlate strongly with it.
# Those without pooling correlate less, because they are full of noise.
#
# ## With the predictor: pooled toward a line
#
# The second level becomes a regression of its own. With $j[i]$ the county of house $i$,
#
# $$\begin{aligned}
# \text{log radon}_i &\sim \operatorname{Normal}(\alpha_{j[i]} + \beta_1\, \text{floor}_i,\;
# \sigma^2), & i &= 1, \dots, 919, \\
# \alpha_j &\sim \operatorname{Normal}(\gamma_0 + \gamma_1\, \text{log uranium}_j,\; \tau^2),
# & j &= 1, \dots, 85.
# \end{aligned}$$
#
# Write $\alpha_j = \gamma_0 + \gamma_1\, \text{log uranium}_j + b_j$, put it into the first line,
# and you have the formula. A group-level predictor is written like any other; that it does not vary
# within counties, hmlm sees for itself.

# %%
soil = sample("log_radon ~ floor + log_uranium + (1 | county)", radon)
print(soil.status)
hmlm.compare(soil, plain, groups=False)

# %% [markdown]
# Read three rows. (The first columns are those of the model with uranium.)
#
# - `log_uranium`: where there is twice as much uranium, log radon is higher by 0.7 log 2, so radon
#   by about 60%.
# - `sd county` is less than half of what it was. It is now the standard deviation of what uranium
#   *does not* explain.
# - `sigma` has not moved. Uranium is the same for all houses of a county, so it cannot say why one
#   has more than its neighbour.

# %%
ax = hmlm.plot_group_predictor(soil, "log_uranium")

# %% [markdown]
# Each point is a county, with its 90% interval; the line is what uranium says by itself, with the
# band of its uncertainty. What is left between the points and the line is $b_j$.
#
# ## Toward the line, not the mean
#
# Now both models with the raw material. Each grey line leads from a county's own estimate (no
# pooling, orange) to the estimate under partial pooling (blue).

# %%
counties["pooled toward the line"] = lines(soil, "line")
beta = soil.variable("beta").mean(axis=(0, 1))  # Intercept, floor, log_uranium
ends = np.array([counties["log_uranium"].min(), counties["log_uranium"].max()])
targets = {
    "pooled toward the mean": np.repeat(plain.variable("beta")[..., 0].mean(), 2),
    "pooled toward the line": beta[0] + beta[2] * ends,
}
figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
for ax, (title, target) in zip(axes, targets.items(), strict=True):
    x, start, end = (counties[name] for name in ("log_uranium", "no pooling", title))
    ax.vlines(x, start, end, color=palette.GREY, linewidth=0.7, zorder=1)
    area = 6 + 1.5 * counties["houses"]
    ax.scatter(x, start, area, facecolor="none", edgecolor=palette.NONE, label="no pooling")
    ax.scatter(x, end, area, color=palette.PARTIAL, alpha=0.8, label="partial pooling")
    ax.plot(ends, target, color=palette.INK, linewidth=1.2, label="expected of a county")
    ax.set(title=title, xlabel="log_uranium")
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("log radon in a basement")
legend = figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)

# %% [markdown]
# On the left a county with two houses is drawn to the middle, whether its soil is rich or poor. On
# the right it is drawn to the counties *with the same soil*. The line also attracts more strongly:

# %%
pooling = pd.concat(
    {
        name: hmlm.measure_pooling(fit).query("component == 'group'").set_index("level")["pooling"]
        for name, fit in {"toward the mean": plain, "toward the line": soil}.items()
    },
    axis=1,
)
some = ["LACQUIPARLE", "AITKIN", "BLUEEARTH", "STLOUIS"]
pd.concat([counties["houses"], pooling.astype(float).round(2)], axis=1).loc[some]

# %% [markdown]
# The pooling factor is 0 for a county that stands alone, 1 for one that takes all from the model.
# It is $1 - \tau^2 / (\tau^2 + \sigma^2 / n_j)$. With a smaller $\tau$ it is nearer to 1: the
# better the second level knows, the more it is believed, also against the county's own houses. Lac
# qui Parle shows what that means.

# %%
parle = counties.loc["LACQUIPARLE"]
pd.DataFrame(
    {
        "expected of a county": [
            targets["pooled toward the mean"][0],
            beta[0] + beta[2] * parle["log_uranium"],
        ],
        "partial pooling": [parle[name] for name in targets],
        "no pooling": parle["no pooling"],
    },
    index=list(targets),
).round(2)

# %% [markdown]
# By its two houses it is the highest county of all, by far. Toward the mean it goes most of the way
# and ends far above what is expected. Toward the line it starts from richer soil, so there is less
# to explain, and two houses are believed less: it ends lower, and close to other counties with
# such soil.
#
# ## R² for each level
#
# One R² cannot tell where a predictor does its work. Gelman and Pardoe (2006) give one for each
# level: $1 - $ (variance of the errors) / (variance of what is to be explained).

# %%
fits = {"floor": plain, "floor + log_uranium": soil}
table = pd.concat({name: hmlm.explained_variance(fit) for name, fit in fits.items()})
levels = table.query("measure == 'level'").droplevel(1)
levels["what"] = np.where(levels["group"] == "", "houses", "counties")
levels.pivot(columns="what", values="estimate").rename_axis(None, axis=1).round(2)

# %% [markdown]
# Uranium explains three quarters of the variance between *counties* and, beyond what the county
# effects had already caught, nothing between *houses*. The same in the units of the outcome:

# %%
split = {
    name: hmlm.split_variance(fit).set_index(["component", "group"]) for name, fit in fits.items()
}
pd.concat({name: each["estimate"] for name, each in split.items()}, axis=1).round(3)

# %%
tau = {name: fit.variable("sd_county").ravel() for name, fit in fits.items()}
left = np.mean(tau["floor + log_uranium"] ** 2) / np.mean(tau["floor"] ** 2)
low, high = np.quantile(tau["floor + log_uranium"], [0.025, 0.975])
Markdown(
    f"Of the variance between counties {left:.0%} is left. The standard deviation that remains has "
    f"a 95% interval from {low:.2f} to {high:.2f}: small, and not known well."
)

# %% [markdown]
# The variance *explained* (`population`) has grown by about what the counties lost. A group-level
# predictor moves variance from one row of the table to another; it does not make houses alike.
#
# ## Why not without the multilevel model?
#
# - **Without pooling** the 85 intercepts explain all differences between counties. Uranium is a
#   combination of them and has no coefficient of its own. hmlm leaves it out, and says so:

# %%
print(regress("log_radon ~ floor + log_uranium + (1 | county)", radon, "none").status)

# %% [markdown]
# - **With complete pooling** it has one. But the regression believes that it has seen 919 soils:

# %%
houses = regress("log_radon ~ floor + log_uranium + (1 | county)", radon, "complete")
hmlm.compare(soil, houses, groups=False)

# %% [markdown]
# Its standard error of `log_uranium` is too small. How much depends on what is left between
# counties. Here uranium explains most of it, and the damage is limited; had it explained nothing
# (exercise 2), it would be great. That is the trap: the regression is most confident where it has
# least reason.
#
# ## A county that nobody has seen
#
# For a county without a house the model still has uranium. Let us see what that is worth, and hide
# every fifth county from both models.

# %%
hidden = counties.index[::5]
is_hidden = radon["county"].isin(hidden)
shown = radon[~is_hidden].assign(county=lambda d: d["county"].cat.remove_unused_categories())
blind = sample("log_radon ~ floor + (1 | county)", shown)
informed = sample("log_radon ~ floor + log_uranium + (1 | county)", shown)

basement = counties.loc[hidden, ["log_uranium", "houses"]].assign(floor=0).reset_index()
found = basement[["county", "houses"]].assign(truth=counties.loc[hidden, "no pooling"].to_numpy())
for name, fit in {"blind": blind, "informed": informed}.items():
    guess = fit.predict(basement, groups="new", random_seed=1)
    found[name] = guess["estimate"]
    found[f"{name}: width"] = guess["upper"] - guess["lower"]
found.nlargest(6, "houses").round(2)

# %% [markdown]
# `truth` is the estimate from the hidden houses alone, so it is noisy too; the six counties with
# most houses are shown. The blind model says the same of all. The informed one follows the soil,
# and is surer of itself. Rightly?

# %%
weight = found["houses"]
errors = {
    name: np.sqrt(np.average((found["truth"] - found[name]) ** 2, weights=weight))
    for name in ("blind", "informed")
}
Markdown(
    f"Error (root mean square, counties weighted by their houses): {errors['blind']:.2f} without "
    f"and {errors['informed']:.2f} with uranium."
)

# %% [markdown]
# Keep three intervals apart. `groups="population"` is for the line itself; `groups="new"` adds that
# a county differs from the line by $b_j$; and `kind="response"` adds that a house differs from its
# county.

# %%
visit = pd.DataFrame({"county": ["a new one"], "floor": [0], "log_uranium": [0.4]})
answers = {
    "the line": soil.predict(visit, groups="population"),
    "a new county": soil.predict(visit, groups="new", random_seed=1),
    "a house in it": soil.predict(visit, "response", groups="new", random_seed=1),
}
pd.concat(answers).droplevel(1).round(2)

# %% [markdown]
# ## A predictor of the row that differs between groups
#
# `floor` belongs to the house. But in some counties every house was measured in the basement, in
# others most on the first floor. Then one coefficient has to answer two questions:
#
# - **within**: of two houses of the *same* county, by how much is the one measured on the first
#   floor lower?
# - **between**: of two *counties*, one with more houses measured on the first floor, by how much is
#   its average lower?
#
# A model with `floor` alone assumes one answer to both. Mundlak (1978) adds the group mean as a
# group-level predictor:
#
# $$\alpha_j \sim \operatorname{Normal}(\gamma_0 + \gamma_1\, \text{log uranium}_j +
# \gamma_2\, \overline{\text{floor}}_j,\; \tau^2).$$
#
# Then $\beta_1$ is the within effect alone, $\beta_1 + \gamma_2$ the between effect, and
# $\gamma_2$, their difference, the *contextual* effect: what it means for a house to be in a county
# of such houses, its own floor being the same.

# %%
share = radon["county"].map(counties["share_on_first_floor"]).astype(float)
radon = radon.assign(floor_mean=share, floor_within=radon["floor"] - share)
mundlak = sample("log_radon ~ floor + floor_mean + log_uranium + (1 | county)", radon)
hmlm.compare(mundlak, soil, groups=False)

# %% [markdown]
# The contextual effect is above zero, with an interval that just leaves zero out. It is not that
# of a floor: that lowers radon. Where more houses were measured on the first floor, fewer may have
# a basement, and the reason for that (the ground, the age of the houses) may go with radon. Adding
# the mean has also moved `floor`:

# %%
rows = {
    "no pooling": alone,
    "partial, with the mean": mundlak,
    "partial, without it": soil,
}
effect = {
    name: hmlm.tidy(fit, groups=False).query("term == 'floor'")[["estimate", "std_error"]].iloc[0]
    for name, fit in rows.items()
}
pd.DataFrame(effect).T.astype(float).round(3)

# %% [markdown]
# With the county mean in the model the coefficient of `floor` is the one of no pooling, where only
# houses of the same county are compared. Without it, it is a compromise of within and between,
# with a slightly smaller standard error. Econometricians choose between the two by a test
# (Hausman's). With the mean in the model there is nothing to choose: the test is that of
# $\gamma_2$.
#
# The same model can be written with `floor` *centred within counties*. Then the coefficient of the
# mean is the between effect itself:

# %%
centred = sample("log_radon ~ floor_within + floor_mean + log_uranium + (1 | county)", radon)


def effects(fit, *names):
    """Mean and 95% interval of sums of coefficients."""
    terms = list(fit.draws["posterior"].dataset["beta"].coords["term"].to_numpy())
    draws = sum(fit.variable("beta")[..., terms.index(name)] for name in names)
    return [draws.mean(), *np.quantile(draws, [0.025, 0.975])]


pd.DataFrame(
    {
        "within": effects(mundlak, "floor"),
        "between": effects(mundlak, "floor", "floor_mean"),
        "contextual": effects(mundlak, "floor_mean"),
        "within, centred": effects(centred, "floor_within"),
        "between, centred": effects(centred, "floor_mean"),
    },
    index=["estimate", "lower", "upper"],
).T.round(2)

# %%
ax = hmlm.plot_group_predictor(mundlak, "floor_mean")

# %% [markdown]
# Many counties are at zero, and the line is held by the few on the right. A warning for the use of
# group means in general: the mean of four houses is a noisy measurement of the share in the county,
# and noise in a predictor draws its coefficient toward zero (Lüdtke and others 2008). The true
# contextual effect may be larger.
#
# ## What to say

# %%
gamma = soil.variable("beta")[..., 2].ravel()


def describe(values, digits=2):
    low, high = np.quantile(values, [0.025, 0.975])
    return f"{np.mean(values):.{digits}f} (95% interval {low:.{digits}f} to {high:.{digits}f})"


r2 = levels.query("group == 'county'")["estimate"].iloc[-1]
Markdown(
    f"""
- **Soil**: a county with twice the uranium has {describe(2**gamma)} times the radon.
- **How much of the differences between counties that explains**: {r2:.0%} of their variance. Their
  standard deviation falls from {tau["floor"].mean():.2f} to
  {tau["floor + log_uranium"].mean():.2f}.
- **Small counties** are best judged by their soil and their houses together.
- **A county without any measurement** can be predicted, and better with uranium than without.
- **Floor**: in the same county, radon on the first floor is
  {describe(np.exp(mundlak.variable("beta")[..., 1].ravel()))} times that in the basement.
"""
)

# %% [markdown]
# None of this says that uranium is the cause. But here physics does: radon is what uranium decays
# to.
#
# ## Exercises
#
# **1.** Does the floor matter more where there is more uranium? Let the effect of the floor vary by
# county, and let uranium explain the variation (a *cross-level interaction*). Draw it.
#
# <details><summary>Solution</summary>
#
# ```python
# cross = sample("log_radon ~ floor * log_uranium + (floor | county)", radon)
# print(hmlm.compare(cross, soil, groups=False))
# ax = hmlm.plot_group_predictor(cross, "log_uranium", column="floor")
# ```
#
# Uranium now predicts intercepts *and* slopes. The richer the soil, the larger the difference
# between basement and first floor, as one would think if radon comes from below; but the interval
# of the interaction reaches zero. The intervals of single counties are wide, because few have
# houses of both kinds.
#
# </details>
#
# **2.** Shuffle uranium among the counties, so that it says nothing. What happens to its
# coefficient, to `sd county` and to the R² of counties? What does the regression without counties
# say of it?
#
# <details><summary>Solution</summary>
#
# ```python
# rng = np.random.default_rng(2)
# noise = pd.Series(rng.permutation(counties["log_uranium"]), index=counties.index)
# shuffled = radon.assign(noise=radon["county"].map(noise).astype(float))
# useless = sample("log_radon ~ floor + noise + (1 | county)", shuffled)
# ols = regress("log_radon ~ floor + noise + (1 | county)", shuffled, "complete")
# print(hmlm.compare(useless, ols, groups=False))
# print(hmlm.explained_variance(useless).query("measure == 'level'")[["group", "estimate"]])
# ```
#
# The standard deviation between counties is about what it was without a predictor, and the R² of
# counties is near zero (it can be below: a predictor may only cost certainty). The standard error
# of the regression is half of the multilevel one, and with this seed it is sure of an effect that
# cannot be there. Try other seeds: far more than one in twenty of its p-values is below 0.05.
#
# </details>
#
# **3.** A county that has not been visited has `log_uranium` of 0.4. How probable is it that its
# average basement has more than 4 pCi/L (log 4 on the scale of the model)? And one single house?
#
# <details><summary>Solution</summary>
#
# ```python
# rng = np.random.default_rng(1)
# b = soil.variable("beta").reshape(-1, 3)
# county = b[:, 0] + 0.4 * b[:, 2] + rng.normal(0, soil.variable("sd_county").ravel())
# house = county + rng.normal(0, soil.variable("sigma").ravel())
# print([round(float(np.mean(each > np.log(4))), 2) for each in (county, house)])
# ```
#
# The county's average is above it almost certainly, a house in about seven cases of ten. (The
# average is that of the logarithms, so its exponential is the *median* house.)
#
# </details>
#
# **4.** Leave uranium out of the model with the county mean of `floor`. What becomes of the
# contextual effect, and why?
#
# <details><summary>Solution</summary>
#
# ```python
# without = sample("log_radon ~ floor + floor_mean + (1 | county)", radon)
# print(hmlm.compare(without, mundlak, groups=False))
# print(counties[["log_uranium", "share_on_first_floor"]].corr().round(2))
# ```
#
# It stays about the same, but its interval is wider and now holds zero. The share of houses
# measured on the first floor is hardly correlated with uranium, so that leaving uranium out does
# not shift it; but more is left unexplained between counties, and so less is known. With a larger
# correlation the share would have stood in for uranium. The within effect does not move at all:
# what is constant in a county cannot confound a comparison within it. That is the strength of
# within effects, and the weakness of contextual ones.
#
# </details>
#
# ## References
#
# - Gelman, A. and Hill, J. (2007). *Data Analysis Using Regression and Multilevel/Hierarchical
#   Models*. Cambridge University Press. Chapters 12 and 21.
# - Gelman, A. and Pardoe, I. (2006). Bayesian measures of explained variance and pooling in
#   multilevel (hierarchical) models. *Technometrics* 48, 241-251.
# - Lüdtke, O. and others (2008). The multilevel latent covariate model: a new, more reliable
#   approach to group-level effects in contextual studies. *Psychological Methods* 13, 203-229.
# - Mundlak, Y. (1978). On the pooling of time series and cross section data. *Econometrica* 46,
#   69-85.
# - Price, P. N., Nero, A. V. and Gelman, A. (1996). Bayesian prediction of mean indoor radon
#   concentrations for Minnesota counties. *Health Physics* 71, 922-936.
