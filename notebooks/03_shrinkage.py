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
# # Reading shrinkage: who moves, how far, and where to
#
# **The question.** Partial pooling moves the estimate of every group. Why does one move far and
# another hardly? Why do arrows not point at the centre? And what can be said of the slope of
# someone who was seen on a single day?
#
# **The data.** The sleep study of Belenky and others (2003): 18 people on three hours of sleep a
# night, their reaction time measured on ten days. In balanced data everyone moves alike, so we
# take rows away from two of them. That has an advantage: we know what the lost rows said.
#
# **What you will learn.** The shrinkage weight $\lambda_j$, its relatives (pooling factor,
# intraclass correlation, design effect, effective sample size), and how hmlm reports them; how to
# read the dumbbell and the plane with its ellipses; that with intercepts and slopes the weight is
# a matrix; why a thin subject's slope moves along the ellipse; what thin data do to ranks; and that
# complete and no pooling are the two ends of partial pooling, to six digits.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.patches import Ellipse

import hmlm
from hmlm.pooling_limits import estimate_at

DRAWS = int(os.environ.get("HMLM_DRAWS", "1000"))  # of each of four chains
GREY, ORANGE, BLUE = "#777777", "#E69F00", "#0072B2"

sleep = hmlm.load_dataset("sleepstudy")
lost = ((sleep["Subject"] == "335") & (sleep["Days"] > 1)) | (
    (sleep["Subject"] == "308") & (sleep["Days"] < 9)
)
thin = sleep[~lost].reset_index(drop=True)
thin[thin["Subject"].isin(["308", "335"])]

# %% [markdown]
# Subject 335 has two days left, the first ones. Subject 308 has one, the last. The other sixteen
# have all ten.
#
# ## Three poolings
#
# `Reaction ~ Days + (Days | Subject)`: everyone has a line of his or her own, and the lines are
# of one population.

# %%
model = hmlm.Model("Reaction ~ Days + (Days | Subject)", thin)
reml = model.fit(hmlm.REML())
bayes = model.fit(hmlm.NUTS(draws=DRAWS, tune=DRAWS), random_seed=1, progressbar=False)
alone = model.with_pooling("none").fit(hmlm.OLS())
pooled = model.with_pooling("complete").fit(hmlm.OLS())
print(bayes.status)
axes = hmlm.plot_groups(bayes, alone, pooled, levels=["308", "335", "337", "309"])

# %% [markdown]
# Subjects 337 and 309 have ten points. Their orange line (no pooling) and blue line (partial
# pooling) are nearly one, far from the grey line of all. Subject 335's two points rise steeply,
# and the blue line does not follow. Through the one point of 308 there is no line at all; the blue
# one is high and steep all the same. Why?
#
# ## One number a person: the shrinkage weight
#
# Begin with a simpler model, in which people differ in their level only: `(1 | Subject)`. Between
# people the standard deviation is $\tau$, within them $\sigma$. The estimate of person $j$ is a
# weighted mean of what the $n_j$ rows say and of what holds for all:
#
# $$ \hat\alpha_j = \lambda_j\, \hat\alpha_j^{\text{own}} + (1 - \lambda_j)\, \hat\alpha, \qquad
# \lambda_j = \frac{n_j}{n_j + \sigma^2 / \tau^2}. $$
#
# Read $\sigma^2 / \tau^2$ as a number of rows: *the population is worth that many rows of your
# own*. With as many rows as that you have half of the say.

# %%
levels_only = hmlm.Model("Reaction ~ Days + (1 | Subject)", thin).fit(hmlm.REML())
tau, sigma = levels_only.estimates["sd_Subject"][0], levels_only.estimates["sigma"]
worth = sigma**2 / tau**2
Markdown(f"tau = {tau:.1f}, sigma = {sigma:.1f}: the population is worth **{worth:.2f} rows**.")

# %% [markdown]
# The same weight has many names. `measure_pooling` gives the *pooling factor* $1 - \lambda_j$
# (Gelman and Pardoe 2006) and the weight; in test theory $\lambda_j$ is the *reliability*. With
# the intraclass correlation $\rho = \tau^2 / (\tau^2 + \sigma^2)$, survey statisticians have the
# *design effect* $1 + (n_j - 1)\rho$, and the *effective size* $n_j$ over that: the number of
# independent people that the rows are worth. They are one thing:
#
# $$ \lambda_j = \frac{n_j\, \rho}{1 + (n_j - 1)\rho} = \rho \times \text{effective size}. $$

# %%
weights = hmlm.measure_pooling(levels_only).query("component == 'group'").set_index("level")
effects = hmlm.design_effect(levels_only).query("level != ''").set_index("level")
icc = hmlm.intraclass_correlation(levels_only).query("kind == 'adjusted'")["estimate"].iloc[0]
table = pd.DataFrame(
    {
        "rows": weights["rows"],
        "n / (n + sigma²/tau²)": weights["rows"] / (weights["rows"] + worth),
        "weight": weights["weight"],
        "pooling factor": weights["pooling"],
        "design effect": effects["design_effect"],
        "effective size": effects["effective_size"],
        "ICC x effective size": icc * effects["effective_size"],
    }
)
table.loc[["308", "335", "309"]].round(3)

# %% [markdown]
# One row has the weight $\rho$ itself: that is a good way to remember what an intraclass
# correlation is. Ten rows are worth 1.4 people, because they are of one and the same. To learn
# of the *population*, ask more people; to learn of *this one*, ask again.
#
# ## Intercepts and slopes: dumbbell and plane
#
# Back to the lines. The dumbbell shows one coefficient: from the person's own estimate (orange) to
# the one under partial pooling (blue), sorted by the latter. The bands hold 50, 90 and 95% of the
# population. Small markers have few rows.

# %%
ax = hmlm.plot_shrinkage(bayes, alone, pooled, columns="Days")

# %% [markdown]
# Subject 335 alone would have the steepest slope of all, 32 ms a day, and it is moved to the
# middle. The two days say almost nothing of a slope. The whole ten days, which we hid, have a
# slope of -3. Subject 308 has no orange circle, but a (small) blue dot at the top.
#
# The plane shows both coefficients.

# %%
ax = hmlm.plot_shrinkage(bayes, alone, pooled)
place = (
    hmlm.tidy(bayes)
    .query("component == 'total'")
    .pivot(index="level", columns="term", values="estimate")
)
start = hmlm.tidy(alone).query("level == '335'").set_index("term")["estimate"]
ends = {"308": place.loc["308"], "335": start}
for subject, end in ends.items():
    at = (end["Intercept"], end["Days"])
    ax.annotate(subject, at, (-27, -4), textcoords="offset points", fontsize=9, weight="bold")

# %% [markdown]
# The ellipses are the population: they hold 50, 90 and 95% of it. Look at the arrows. They do not
# point at the centre. Most run from the upper left to the lower right, or back, whatever side of
# the centre they start from: a high intercept is exchanged for a steep slope. The one of 335 is
# not long because it starts far out. It is long because two days say so little.
#
# ## The weight is a matrix
#
# The data of person $j$ have an ellipse of their own: the covariance $\sigma^2 (Z_j'Z_j)^{-1}$ of
# the separate estimate. Population and data are two sources, each with an uncertainty in two
# dimensions, and the estimate weighs them:
#
# $$ \hat\theta_j = W_j\, \hat\theta_j^{\text{own}} + (I - W_j)\, \hat\beta, \qquad
# W_j = D \left( D + \sigma^2 (Z_j'Z_j)^{-1} \right)^{-1}. $$
#
# By hand for 335, with the REML estimates, beside hmlm's:

# %%
found = hmlm.tidy(reml, groups=False).set_index(["component", "term"])["estimate"]
beta = found["population"].to_numpy()
sds, cor = found["sd"].to_numpy(), found["cor"].iloc[0]
D = np.outer(sds, sds) * np.array([[1, cor], [cor, 1]])
s2 = found["residual"].iloc[0] ** 2


def totals(fit):
    own = hmlm.tidy(fit).query("component == 'total'")
    return own.pivot(index="level", columns="term", values="estimate")[["Intercept", "Days"]]


Z = np.column_stack([[1, 1], [0, 1]])
S = s2 * np.linalg.inv(Z.T @ Z)
W = D @ np.linalg.inv(D + S)
own = totals(alone).loc["335"].to_numpy(float)
by_hand = W @ own + (np.eye(2) - W) @ beta
print("W =", W.round(3).tolist())
print("by hand:", by_hand.round(6), " hmlm:", totals(reml).loc["335"].to_numpy(float).round(6))

# %% [markdown]
# First row of $W$: what the intercept takes. About 0.7 of the own intercept, and in addition some
# of the own *slope*. Second row: the slope takes next to nothing of the own slope, and a little of
# the own intercept. A picture of it:

# %%
fig, ax = plt.subplots(figsize=(6.2, 4.6), layout="constrained")


def draw(center, covariance, color, **style):
    """Draw the ellipse that holds one half."""
    values, vectors = np.linalg.eigh(covariance)
    width, height = 2 * np.sqrt(2 * np.log(2) * values[::-1])
    angle = np.degrees(np.arctan2(*vectors[::-1, 1]))
    ax.add_patch(
        Ellipse(center, width, height, angle=angle, edgecolor=color, facecolor="none", **style)
    )


posterior = np.linalg.inv(np.linalg.inv(D) + np.linalg.inv(S))
draw(beta, D, GREY, linestyle=(0, (5, 2)), linewidth=1.6)
draw(own, S, ORANGE, linewidth=1.8)
draw(by_hand, posterior, BLUE, linewidth=1.8)
multiples = np.geomspace(0.02, 500, 200)[:, None, None]  # of the sds of the population
weight = multiples**2 * D @ np.linalg.inv(multiples**2 * D + S)
way = beta + weight @ (own - beta)
ax.plot(*way.T, color="#222222", linewidth=1.2, linestyle=":")
labels = ["population", "two days of 335", "both together"]
for center, color, label in zip((beta, own, by_hand), (GREY, ORANGE, BLUE), labels, strict=True):
    ax.scatter(*center, color=color, s=40, zorder=3, label=label)
whole = sleep[sleep["Subject"] == "335"]
slope, intercept = np.polyfit(whole["Days"], whole["Reaction"], 1)
ax.scatter(intercept, slope, marker="*", s=110, color="#222222", zorder=3, label="all ten days")
ax.set(xlabel="Intercept", ylabel="Days", xlim=(205, 300), ylim=(-25, 85))
ax.legend(frameon=False, loc="upper right")
ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# The orange ellipse of two days is long and tilted. A line through two neighbouring points can turn
# about them: if it starts lower, it must rise more steeply. On this scale the grey ellipse of the
# population is flat. They meet where both find it plausible, and there the estimate lies. The
# dotted curve is the way from no to complete pooling, as the population gets narrower. (The star
# is what all ten days say. Partial pooling does not know it, and comes nearer to it than the two
# days alone.)
#
# ## One day, and a slope: moving along the ellipse
#
# Subject 308 has one row, on day 9. With $z = (1, 9)$, one row says something of one number only:
# the level on that day, $z'\theta$. It was higher than expected by $r = y - z'\hat\beta$. What that
# does to intercept and slope is pure regression, from the population:
#
# $$ \hat b = \frac{D z}{z'Dz + \sigma^2}\; r. $$
#
# The direction is $Dz$, whatever was seen. It is the line in the plane along which people differ
# who differ on day 9. Those who are slow on day 9 tend to be those with a steep slope, so a slow
# day 9 is evidence of a steep slope. What if we had seen the same person on another day?

# %%
rows = {}
for day in (0, 3, 6, 9):
    z = np.array([1, day])
    move = D @ z / (z @ D @ z + s2)
    rows[day] = {
        "correlation of level and slope": (D @ z)[1] / np.sqrt(z @ D @ z * D[1, 1]),
        "intercept, of a surprise of 100 ms": 100 * move[0],
        "slope, of a surprise of 100 ms": 100 * move[1],
    }
pd.DataFrame(rows).T.rename_axis("day seen").round(2)

# %%
z = np.array([1, 9])
y9 = thin.loc[thin["Subject"] == "308", "Reaction"].iloc[0]
surprise = y9 - z @ beta
by_hand = beta + D @ z / (z @ D @ z + s2) * surprise
print(f"surprise on day 9: {surprise:.0f} ms")
print("by hand:", by_hand.round(6), " hmlm:", totals(reml).loc["308"].to_numpy(float).round(6))

# %%
fig, ax = plt.subplots(figsize=(6.2, 4.2), layout="constrained")
for radius in (0.5, 0.9, 0.95):
    draw(beta, D * np.log(1 - radius) / np.log(0.5), BLUE, linewidth=0.9, alpha=0.6)
for day, color in {0: "#56B4E9", 3: "#009E73", 9: "#D55E00"}.items():
    step = D @ np.array([1, day])
    step = step / np.sqrt(step @ np.linalg.solve(D, step))
    ends = beta + np.outer([-2.45, 2.45], step)
    ax.plot(*ends.T, color=color, linewidth=1.6, label=f"seen on day {day}")
ax.scatter(*totals(reml).drop(["308", "335"]).to_numpy(float).T, s=22, color=BLUE, alpha=0.5)
ax.scatter(*by_hand, s=50, color="#D55E00", zorder=3)
ax.annotate("308", by_hand, (8, -4), textcoords="offset points", weight="bold", fontsize=9)
ax.scatter(*beta, marker="+", s=160, color="#222222", zorder=3)
ax.set(xlabel="Intercept", ylabel="Days")
ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# Each line shows where a person can end who was seen on that day alone, whatever the value. Seen on
# day 0 the line is almost flat: the intercept moves, the slope little, by the correlation of the
# two, which is the tilt of the ellipse. Seen on day 9 it is steep: the slope moves a lot. The
# estimate of 308 lies on it. Its own data had no slope, the population lent one.
#
# How sure is that? The interval says it. 308 and 335 have the widest.

# %%
ax = hmlm.plot_caterpillar(bayes, alone, column="Days")
_ = ax.set_xlim(-15, 45)
# %% [markdown]
# ## Was it right to move them?
#
# For 308 and 335 we know the ten days. That is two cases, and we chose them. So do it for everyone:
# leave each person in turn with the first two days, fit again, and predict the other eight.

# %%
formula = "Reaction ~ Days + (Days | Subject)"
errors = {"no pooling": [], "complete pooling": [], "partial pooling": []}
for subject in sleep["Subject"].cat.categories:
    hidden = (sleep["Subject"] == subject) & (sleep["Days"] > 1)
    short = hmlm.Model(formula, sleep[~hidden].reset_index(drop=True))
    later = sleep[hidden]
    first = sleep[(sleep["Subject"] == subject) & (sleep["Days"] < 2)]
    line = np.polyfit(first["Days"], first["Reaction"], 1)
    guesses = {
        "no pooling": np.polyval(line, later["Days"]),
        "complete pooling": short.with_pooling("complete")
        .fit(hmlm.OLS())
        .predict(later)["estimate"],
        "partial pooling": short.fit(hmlm.REML()).predict(later)["estimate"],
    }
    for name, guess in guesses.items():
        errors[name].append(np.mean((later["Reaction"].to_numpy() - np.asarray(guess)) ** 2))
errors = pd.DataFrame(errors, index=sleep["Subject"].cat.categories)
best = errors.idxmin(axis=1).value_counts()
pd.DataFrame({"RMSE, ms": np.sqrt(errors.mean()).round(1), "best for": best}).fillna(0).astype(
    {"best for": int}
)

# %% [markdown]
# Two days alone are hopeless. Everyone's line is much better, and everyone's line, moved by what
# the two days say of the *level*, is better again. Not for each person: the last column counts for
# whom each forecast was the best, and complete pooling wins often, by little. Partial pooling is
# better on average over people, which is what it promises.
#
# ## Ranks: thin subjects and league tables
#
# Who suffers most from lack of sleep? Rank the slopes in every draw of the posterior.

# %%
axes = hmlm.plot_ranks(bayes, column="Days")

# %% [markdown]
# Look at three rows.
#
# - **337 and 308** share the top. The one has ten days, the other one, and the wider interval.
# - **335** is in the middle, because the *estimate* is. Its rank may be anything from first to
#   last. It has a larger probability of being the steepest than people ranked above it: of someone
#   about whom little is known, more is possible.
#
# "The highest estimate" and "most probably the highest" are two questions. A thin group's estimate
# is shrunk, so it seldom wins by the first; its posterior is wide, so it is never quite out by the
# second. And a ranking of *separate* estimates puts thin groups at both ends: 335 alone had the
# steepest slope of all.
#
# ## The two ends
#
# Partial pooling lies between complete pooling and none. Now let us walk to the ends.
# `plot_conditional` holds the standard deviation between people at each value, here in the model of
# levels, and shows every person's estimate.

# %%
axes = hmlm.plot_conditional(levels_only)

# %% [markdown]
# All fan out from one point. Where the data say that the standard deviation is (below), most curves
# have long arrived at their own estimate. The one that is still on its way, and crosses others, is
# 308: one row must wait for a wider population to be believed. In the middle panel the two upper
# curves are 308 and 335.
#
# And in numbers, with intercepts *and* slopes: `estimate_at` scales both standard deviations of the
# fit, and keeps their ratio and the correlation. At zero it should give the coefficients of one
# regression for all; at infinity those of each person's own.

# %%
path = estimate_at(reml, [0, 1e-4, 1, 10, 100, 1e7, np.inf])
at = path.query("component == 'total' and level in ['309', '335', '308']")
at = at.pivot(index="sd", columns=["level", "term"], values="estimate").round(3)
at.rename(index="{:g}".format)

# %%
complete = hmlm.tidy(pooled).query("component == 'population'").set_index("term")["estimate"]
table = path.query("component == 'total'").pivot(
    index=["sd", "level"], columns="term", values="estimate"
)[["Intercept", "Days"]]


def largest_gap(sd, target):
    return float(np.nanmax(np.abs(table.loc[sd].to_numpy(float) - np.asarray(target, dtype=float))))


separate = totals(alone).loc[table.loc[0.0].index]
gaps = {
    "sd = 0 to one regression for all": largest_gap(0.0, complete[["Intercept", "Days"]]),
    "sd = 0.0001": largest_gap(1e-4, complete[["Intercept", "Days"]]),
    "sd = 10,000,000 to separate regressions": largest_gap(1e7, separate),
    "sd = infinity": largest_gap(np.inf, separate),
}
for name, gap in gaps.items():
    print(f"{name:41} largest difference of any coefficient: {gap:.1e}")
assert max(gaps.values()) < 1e-6

# %% [markdown]
# Both ends are reached to six digits. *Complete pooling and no pooling are not rivals of the
# multilevel model. They are the multilevel model, with a standard deviation that someone has fixed
# at zero or infinity without asking the data.*
#
# (308 has no value at infinity: one day does not determine a line. At ten million it still has one,
# since the population, however wide, has a direction.)
#
# ## Exercises
#
# **1.** Let 308 have day 0 only, instead of day 9. What happens to the estimated slope?
#
# <details><summary>Solution</summary>
#
# ```python
# other = sleep[
#     ~((sleep["Subject"] == "335") & (sleep["Days"] > 1))
#     & ~((sleep["Subject"] == "308") & (sleep["Days"] > 0))
# ].reset_index(drop=True)
# seen_first = hmlm.Model(formula, other).fit(hmlm.REML())
# print(totals(seen_first).loc["308"].round(1))
# print(hmlm.measure_pooling(seen_first).query("level == '308'")[["term", "weight"]].round(2))
# ```
#
# It is the average slope: on day 0 the person was average, and had day 0 been unusual, the slope
# would hardly have noticed. The weight of the slope is near zero, where seen on day 9 it was two
# thirds.
#
# </details>
#
# **2.** Count days from day 9 (`Days - 9`). Intercept and slope are now strongly correlated. Do the
# fitted lines change? Do the arrows?
#
# <details><summary>Solution</summary>
#
# ```python
# late = thin.assign(Late=thin["Days"] - 9)
# shifted = hmlm.Model("Reaction ~ Late + (Late | Subject)", late).fit(hmlm.REML())
# print(hmlm.tidy(shifted, groups=False).query("component == 'cor'")["estimate"].round(2))
# gap = shifted.predict(late)["estimate"] - reml.predict(thin)["estimate"]
# print(f"largest change of a fitted value: {np.abs(gap).max():.4f}")
# ax = hmlm.plot_shrinkage(shifted)
# ```
#
# It is the same model, and the same lines. The plane has another first axis, the level on day 9,
# and the ellipse is narrow and tilted: now one *sees* how a level on day 9 tells of a slope. A
# correlation means nothing until it is said where zero is.
#
# </details>
#
# **3.** How many days would it take for a person's own *level* to have a weight of 0.95 (in the
# model of levels)? And for the *slope*, in the model of lines, if the days go on as 0, 1, 2, ...?
#
# <details><summary>Solution</summary>
#
# ```python
# print(f"level: {np.ceil(0.95 / 0.05 * worth):.0f} days")
# for n in (2, 3, 5, 10, 15, 20):
#     Z = np.column_stack([np.ones(n), np.arange(n)])
#     left = np.linalg.inv(np.linalg.inv(D) + Z.T @ Z / s2)
#     print(n, "days: weight of the slope", round(1 - left[1, 1] / D[1, 1], 2))
# ```
#
# From $\lambda = n / (n + k)$, with $k = \sigma^2 / \tau^2$, follows $n = k \lambda / (1 -
# \lambda)$. The slope starts more slowly, with days that lie close together, and then gains fast,
# because later days lie farther out.
#
# </details>
#
# **4.** Take the correlation out: `(Days || Subject)`. Does the slope of 308 still move?
#
# <details><summary>Solution</summary>
#
# ```python
# free = hmlm.Model("Reaction ~ Days + (Days || Subject)", thin).fit(hmlm.REML())
# print(pd.concat([totals(reml).loc["308"], totals(free).loc["308"]], axis=1).round(1))
# print(hmlm.correlation_evidence(bayes)[["estimate", "lower", "upper", "overlap"]].round(2))
# ```
#
# It does, nearly as far. Without a correlation at day 0 there still is one at day 9: who has a
# steeper slope is slower then. Only for someone seen on day 0 alone would the slope stay where it
# is. And the data do not tell whether there is a correlation at day 0: its posterior is much like
# its prior.
#
# </details>
#
# **5.** The thin subjects also have something to say about the population. Leave both out. Which
# estimates change?
#
# <details><summary>Solution</summary>
#
# ```python
# without = thin[~thin["Subject"].isin(["308", "335"])].assign(
#     Subject=lambda d: d["Subject"].cat.remove_unused_categories()
# )
# fewer = hmlm.Model(formula, without).fit(hmlm.REML())
# beside = {
#     name: hmlm.tidy(fit, groups=False).set_index(["component", "term"])[["estimate", "std_error"]]
#     for name, fit in {"18 people": reml, "16 people": fewer}.items()
# }
# print(pd.concat(beside, axis=1).round(2))
# ```
#
# Little changes. Three rows of 163 cannot say much about a population, but they need not be thrown
# away: a multilevel model uses what there is, and weighs it. (Leaving people out *because* they
# have few rows can even do harm: those who drop out are seldom a random choice.)
#
# </details>
#
# ## References
#
# - Belenky, G. and others (2003). Patterns of performance degradation and restoration during sleep
#   restriction and subsequent recovery. *Journal of Sleep Research* 12, 1-12.
# - Gelman, A. and Pardoe, I. (2006). Bayesian measures of explained variance and pooling in
#   multilevel (hierarchical) models. *Technometrics* 48, 241-251.
# - Goldstein, H. and Spiegelhalter, D. J. (1996). League tables and their limitations. *Journal of
#   the Royal Statistical Society A* 159, 385-443.
# - Robinson, G. K. (1991). That BLUP is a good thing. *Statistical Science* 6, 15-32.
# - Kish, L. (1965). *Survey Sampling*. Wiley. Sections 5.4 and 8.2.
