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
# # Who is the best batter? Pooling, judged by the rest of the season
#
# **The question.** It is spring 1970, and 18 baseball players have each batted 45 times. Clemente
# made 18 hits, a batting average of 0.400; Alvis made 7, which is 0.156. Predict what each will do
# in the rest of the season. And is Clemente the best?
#
# **The data.** Efron and Morris (1975) collected them because here, for once, we can look up the
# answer: the season went on, for 70 to 591 more at-bats a player.
#
# **What you will learn.** How to judge complete, no and partial pooling by data that none of them
# has seen, with an error and with a score for probabilities; Stein's paradox, which says that
# partial pooling is no matter of taste; what the checks can see and what they cannot; how sure a
# ranking is; and what changes when there is more data.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from scipy import special, stats

import hmlm

DRAWS = int(os.environ.get("HMLM_DRAWS", "1000"))  # of each of four chains
GREY, ORANGE, BLUE = "#777777", "#E69F00", "#0072B2"


def sample(model):
    return model.fit(hmlm.NUTS(draws=DRAWS, tune=DRAWS), random_seed=1, progressbar=False)


batters = hmlm.load_dataset("baseball")
batters.iloc[[0, 1, 2, -2, -1]]

# %% [markdown]
# `AB` counts at-bats, 45 for everyone, and `Hits` the hits in them. The last two columns are the
# rest of the season. **We put them in an envelope** and open it only to keep the score.

# %%
early = batters[["Player", "AB", "Hits"]]
envelope = batters[["Player"]].assign(AB=batters["RemainingAB"], Hits=batters["RemainingHits"])
truth = (envelope["Hits"] / envelope["AB"]).to_numpy()

# %% [markdown]
# ## Three forecasts
#
# Player $j$ has an ability $p_j$, the probability of a hit: $\text{Hits}_j \sim
# \operatorname{Binomial}(45, p_j)$.
#
# - **No pooling**: his own average is all that counts. The one with 0.400 goes on with 0.400.
# - **Complete pooling**: 45 at-bats are too few to tell anyone apart; all get 0.265.
# - **Partial pooling**: the log odds of the $p_j$ are spread around a common mean, with a standard
#   deviation $\tau$ that the data must tell.

# %%
model = hmlm.Model("p(Hits, AB) ~ 1 + (1 | Player)", early, family="binomial")
fits = {pooling: sample(model.with_pooling(pooling)) for pooling in ("none", "complete", "partial")}
partial = fits["partial"]
print(partial.status)
print(partial.summary())

# %%
ax = hmlm.plot_shrinkage(partial)

# %% [markdown]
# The axis has log odds: -1.0 is a probability of 0.27. The estimates move most of the way to the
# middle. The players have equal numbers of at-bats, so all are weighted alike, and nobody overtakes
# anybody. How much weight a player's own 45 at-bats have:

# %%
hmlm.measure_pooling(partial).query("component == 'group'")["weight"].describe()[["min", "max"]]

# %% [markdown]
# ## Opening the envelope
#
# Forecasts are probabilities, `fit.predict` with one at-bat a player. In front of them, what
# happened.

# %%
one = early.assign(AB=1)
forecast = pd.DataFrame({k: fit.predict(one)["estimate"] for k, fit in fits.items()})
forecast.index = early["Player"]
table = pd.concat([pd.Series(truth, forecast.index, name="the rest"), forecast], axis=1)
table.round(3)

# %%
fig, ax = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
place = np.arange(18)[::-1]
own = (early["Hits"] / early["AB"]).to_numpy()
ax.hlines(place, forecast["partial"], own, color="#222222", alpha=0.5, linewidth=1)
ax.scatter(
    own, place, s=38, facecolor="white", edgecolor=ORANGE, linewidth=1.4, label="early average"
)
ax.scatter(forecast["partial"], place, s=38, color=BLUE, label="partial pooling")
ax.scatter(truth, place, s=envelope["AB"] / 6, color="#222222", marker="D", label="rest of season")
ax.axvline(
    forecast["complete"].iloc[0], color=GREY, linestyle=(0, (5, 2)), label="complete pooling"
)
ax.set_yticks(place, early["Player"])
ax.set_xlabel("batting average")
ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize=8.5)
ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# The black diamonds (larger for more at-bats) are spread much less than the orange circles. Go
# through the players: which of the three forecasts lies nearest? Those with few at-bats left tell
# less. In numbers, the root of the mean squared error:

# %%
noise = np.sqrt(np.mean(truth * (1 - truth) / envelope["AB"]))
score = pd.DataFrame({"rmse": np.sqrt(((forecast.T - truth).T ** 2).mean())})
nearer = (np.abs(forecast["partial"] - truth) < np.abs(own - truth)).sum()
Markdown(
    f"RMSE: no pooling **{score.loc['none', 'rmse']:.3f}**, complete "
    f"**{score.loc['complete', 'rmse']:.3f}**, partial **{score.loc['partial', 'rmse']:.3f}**. "
    f"Partial pooling is nearer to the rest of the season than the player's own average for "
    f"{nearer} of 18. Someone who knew all abilities would still have an error of about "
    f"{noise:.3f}: the rest of the season is chance, too."
)

# %% [markdown]
# No pooling is far behind. Between the other two there is little: with 45 at-bats, *"they are all
# the same"* is a good forecast of the rate. It has another fault. It claims to be sure.
#
# ## Judging the whole forecast
#
# A forecast of chances should be judged as such. For every player the model gives a probability
# to each number of hits in the rest of the season, averaged over the draws $s$:
#
# $$ \Pr(\text{hits}_j) = \frac{1}{S} \sum_s \operatorname{Binomial}(\text{hits}_j \mid
# \text{at-bats}_j,\; p_j^{(s)}). $$
#
# The **log score** is the sum of the logarithms of what it gave to that which happened. It
# punishes those who are wrong, and most of all those who are wrong and sure.


# %%
def abilities(fit):
    """Draws of the ability of each player, draws by players."""
    names = [variable.name for variable in fit.design.variables]
    eta = np.zeros((1, 18))
    if "beta" in names:
        eta = eta + fit.variable("beta").reshape(-1, 1)
    if "b_Player" in names:
        eta = eta + fit.variable("b_Player").reshape(-1, 18)
    return special.expit(eta)


def log_score(p):
    """Log probability of the rest of the season, by player."""
    each = stats.binom.logpmf(envelope["Hits"].to_numpy(), envelope["AB"].to_numpy(), p)
    return special.logsumexp(each, axis=0) - np.log(len(p))


for name, fit in fits.items():
    interval = fit.predict(envelope, "response", prob=0.8, random_seed=1)
    inside = (interval["lower"] <= envelope["Hits"]) & (envelope["Hits"] <= interval["upper"])
    score.loc[name, "log score"] = log_score(abilities(fit)).sum()
    score.loc[name, "80% intervals that hold"] = f"{inside.sum()} of 18"
    score.loc[name, "their width, hits"] = (interval["upper"] - interval["lower"]).mean()
score.round(3)

# %% [markdown]
# - **No pooling** has honest intervals, and they are useless: they are so wide because they take
#   45 at-bats for all that is known of a batter.
# - **Complete pooling** has the narrowest ones, and pays for it where a player is out of the
#   ordinary.
# - **Partial pooling** has the best score of the three. Which players make the difference?

# %%
gain = pd.Series(
    log_score(abilities(partial)) - log_score(abilities(fits["complete"])), early["Player"]
)
gain.sort_values().iloc[[0, 1, 2, -3, -2, -1]].round(2)

# %% [markdown]
# For most, complete pooling is a little ahead. It is wrong in the unusual ones, in Clemente and
# Williams above all, and there it pays for having been sure. This is what intervals are for.
#
# ## Could we have known it in spring?
#
# Cross-validation judges without an envelope: leave each player out, and ask how well the others
# predict him.

# %%
ranked = hmlm.rank_fits(partial, fits["complete"])
ranked[["fit", "elpd_loo", "difference", "se_difference"]].round(2)

# %%
partial.check(random_seed=1)

# %%
ax = hmlm.plot_ppc_groups(partial, random_seed=1)

# %%
faults = fits["complete"].check(random_seed=1).found
print(f"Checks of complete pooling that are not fine: {len(faults)}")


def chi_squared(data):
    """Pearson's test that all players have the same ability."""
    p = data["Hits"].sum() / data["AB"].sum()
    expected = data["AB"] * p
    statistic = ((data["Hits"] - expected) ** 2 / (expected * (1 - p))).sum()
    return statistic, stats.chi2.sf(statistic, len(data) - 1)


for name, data in {"early": early, "rest": envelope}.items():
    statistic, p_value = chi_squared(data)
    print(f"{name:6} chi-squared {statistic:.1f} with 17 df, p = {p_value:.3f}")

# %% [markdown]
# No, not in spring. Neither cross-validation nor the checks find fault with either model, and a
# test of 45 at-bats each finds no difference between the players. With the envelope open the same
# test does find it. "Not significant" had not meant "the same". Partial pooling did not have to
# decide: the posterior of $\tau$ reaches down to zero, and the forecasts are averages over what is
# possible.
#
# ## Stein's paradox
#
# In 1956 Stein proved what nobody wanted to believe. Estimate several means from one noisy
# observation each: three or more, or four if you pull them towards their own average. The
# observations themselves, unbiased, the best for each mean alone, are *not* the best taken
# together. For **every** true value of the means, without exception, there is an estimate with a
# smaller expected total squared error. James and Stein (1961) found one: pull the observations
# $y_j$ with their variance $\sigma^2$ towards the mean of all $k$,
#
# $$ \hat\theta_j = \bar{y} + c\,(y_j - \bar{y}), \qquad
# c = 1 - \frac{(k - 3)\, \sigma^2}{\sum_j (y_j - \bar{y})^2}. $$
#
# No prior, no model of a population. Compare $c$ with the weight of partial pooling $\tau^2 /
# (\tau^2 + \sigma^2)$. The sum in the denominator is about $(k - 1)(\tau^2 + \sigma^2)$: it is the
# same thing, with the spread of the players estimated from the players.

# %%
mean = own.mean()
variance = mean * (1 - mean) / 45
c = 1 - (18 - 3) * variance / ((own - mean) ** 2).sum()
james_stein = mean + c * (own - mean)
rmse = np.sqrt(((james_stein - truth) ** 2).mean())
Markdown(
    f"c = {c:.3f}. James-Stein gives Clemente {james_stein[0]:.3f}, partial pooling "
    f"{forecast['partial'].iloc[0]:.3f}. RMSE of James-Stein: {rmse:.3f}."
)

# %% [markdown]
# Two roads, one estimate. What hmlm adds is the uncertainty, of $\tau$ too; and that it works the
# same way when players differ in at-bats, or have predictors.
#
# One season is one throw. Is it luck? Simulate: 18 players whose abilities have a standard
# deviation of our choosing, 45 at-bats each, 20,000 springs at each value.

# %%
rng = np.random.default_rng(1)
spreads = np.linspace(0, 0.12, 13)
shape = rng.standard_normal(18)
shape = (shape - shape.mean()) / shape.std()
errors = []
for spread in spreads:
    p = 0.265 + spread * shape
    y = p + np.sqrt(variance) * rng.standard_normal((20_000, 18))
    center = y.mean(axis=1, keepdims=True)
    ss = ((y - center) ** 2).sum(axis=1, keepdims=True)
    shrunk = center + np.maximum(1 - 15 * variance / ss, 0) * (y - center)
    each = {"no pooling": y, "complete pooling": center, "James-Stein": shrunk}
    errors.append({k: np.sqrt(((v - p) ** 2).mean()) for k, v in each.items()})
errors = pd.DataFrame(errors, index=spreads)

fig, ax = plt.subplots(figsize=(6.2, 3.6), layout="constrained")
looks = {"no pooling": (ORANGE, "-"), "complete pooling": (GREY, "--"), "James-Stein": (BLUE, "-")}
for name, (color, line) in looks.items():
    ax.plot(errors.index, errors[name], color=color, linestyle=line, linewidth=2, label=name)
ax.axvspan(0.02, 0.035, color=BLUE, alpha=0.12, linewidth=0, label="spread among regular players")
ax.set(xlabel="true sd of abilities", ylabel="RMSE", xlim=(0, 0.12), ylim=(0, 0.1))
ax.legend(frameon=False, fontsize=9)
ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# - Where players differ little, complete pooling is right; where they differ much, no pooling is
#   nearly right. You do not know which.
# - The blue curve does not need to know. It is never above the orange one: that is the
#   theorem. And it leaves the grey one as soon as that goes wrong.
#
# The theorem is about the *sum* over players. It says nothing of each: in the envelope, a few were
# nearer to their own average.

# %%
worse = early["Player"][np.abs(forecast["partial"].to_numpy() - truth) >= np.abs(own - truth)]
print("Nearer to their own average:", ", ".join(worse))

# %% [markdown]
# And the players whose rest was farthest from the partial-pooling forecast are the exceptional
# ones. Who thinks of one player only, and knows him to be exceptional, should not pool him with the
# ordinary.
#
# ## Who is the best?
#
# Rank the players in every draw. How often is each of them first?

# %%
axes = hmlm.plot_ranks(partial)

# %% [markdown]
# Clemente leads, with a probability of about one in five. The rank of nearly every player may be
# anything. Without pooling the answer looks better than it is, and after the season?

# %%
whole = early.assign(AB=early["AB"] + envelope["AB"], Hits=early["Hits"] + envelope["Hits"])
season = sample(hmlm.Model("p(Hits, AB) ~ 1 + (1 | Player)", whole, family="binomial"))


def first(fit):
    """Probability that each player is the best."""
    p = abilities(fit)
    return np.bincount(p.argmax(axis=1), minlength=18) / len(p)


best = pd.DataFrame(
    {
        "no pooling, spring": first(fits["none"]),
        "partial pooling, spring": first(partial),
        "partial pooling, whole season": first(season),
        "rest of season": truth,
    },
    index=early["Player"],
)
best.nlargest(6, "partial pooling, whole season").round(2)

# %% [markdown]
# The spring table had the right man on top, and the wrong man second. Williams was hidden in the
# middle, with 10 hits like four others, and came out with 0.330. A forecast that gives everyone a
# chance had some left for him.
#
# With ten times as many at-bats there is less pooling, and now the players have different numbers
# of them:

# %%
pooling = hmlm.measure_pooling(season).query("component == 'group'")
pooling = pooling.assign(at_bats=whole["AB"].to_numpy())[["level", "at_bats", "weight"]]
pooling.sort_values("at_bats").iloc[[0, 1, -2, -1]].round(2)

# %%
axes = hmlm.plot_ranks(season)

# %% [markdown]
# ## Another population: the beta distribution
#
# Here abilities had a normal distribution on the log odds. The textbook alternative is a beta
# distribution of $p_j$, with mean $m$ and precision $\phi$. It can be integrated out, which
# leaves beta-binomial counts: hmlm's `beta-binomial` family without any groups. Given $m$ and
# $\phi$,
#
# $$ \operatorname{E}(p_j \mid y_j) = \frac{m\phi + \text{Hits}_j}{\phi + 45}, $$
#
# so that $\phi$ reads as *at-bats that the population is worth*.

# %%
beta_fit = sample(hmlm.Model("p(Hits, AB) ~ 1", early, family="beta-binomial"))
phi = beta_fit.variable("phi").reshape(-1, 1)
m = special.expit(beta_fit.variable("beta").reshape(-1, 1))
rng = np.random.default_rng(1)
by_beta = rng.beta(
    m * phi + early["Hits"].to_numpy(), (1 - m) * phi + (45 - early["Hits"]).to_numpy()
)
low, middle, high = np.quantile(phi, [0.025, 0.5, 0.975])
rmse = np.sqrt(((by_beta.mean(axis=0) - truth) ** 2).mean())
print(f"phi: {middle:.0f} at-bats (95% interval {low:.0f} to {high:.0f})")
print(f"RMSE {rmse:.3f}, log score {log_score(by_beta).sum():.1f}")
print(f"Clemente: {by_beta[:, 0].mean():.3f}")

# %% [markdown]
# The population is probably worth more than a player's 45 at-bats, and nobody can say how much
# more: the interval of $\phi$ spans a factor of fifty. The default prior of $\phi$ differs from
# that of $\tau$, so the amount of pooling does as well; the shape of the population matters little
# beside it.
#
# ## Exercises
#
# **1.** Baseball has been played for a century. Among regular players, true abilities have a
# standard deviation of about 0.03, which is 0.15 on the scale of log odds, and a mean near 0.260.
# Put this into the priors. Do the forecasts get better?
#
# <details><summary>Solution</summary>
#
# ```python
# expert = sample(
#     model.with_priors(
#         Intercept=hmlm.Prior("normal", mu=special.logit(0.26), sigma=0.05),
#         sd=hmlm.Prior("gamma", alpha=15, beta=100),  # mean 0.15, sd 0.04
#     )
# )
# p = abilities(expert)
# print(f"RMSE {np.sqrt(((p.mean(axis=0) - truth) ** 2).mean()):.4f}")
# print(f"log score {log_score(p).sum():.1f}")
# ```
#
# The prior decides how far players are pooled, which 45 at-bats cannot. The forecasts hardly
# change, because the data happened to point at nearly the same place. In a spring with a wilder
# table they would have changed more. The expert is protected against that; we were lucky.
#
# </details>
#
# **2.** Suppose that Clemente had 9 hits in 22 at-bats, and the others their 45. What happens to
# his forecast, and to his rank?
#
# <details><summary>Solution</summary>
#
# ```python
# short = early.assign(
#     AB=early["AB"].where(early["Player"] != "Clemente", 22),
#     Hits=early["Hits"].where(early["Player"] != "Clemente", 9),
# )
# short_fit = sample(hmlm.Model("p(Hits, AB) ~ 1 + (1 | Player)", short, family="binomial"))
# print(short_fit.predict(short.assign(AB=1)).head(3).round(3))
# print(first(short_fit)[:3].round(2))
# ```
#
# His average is a little higher, 0.409, and his forecast falls below Robinson's, who has 17 of 45.
# Half the at-bats, less weight. His probability of being the best hardly falls behind Robinson's,
# though: of someone who is less known more is possible.
#
# </details>
#
# **3.** Judge the three poolings by the *absolute* error instead of the squared one, and by the
# largest error. Does anything change?
#
# <details><summary>Solution</summary>
#
# ```python
# error = (forecast.T - truth).T.abs()
# print(error.agg(["mean", "max"]).T.round(3))
# print(error.idxmax().astype(str))
# ```
#
# Partial pooling is the best by either, closely followed by complete pooling. The largest error of
# both is in a star whom they took for ordinary, Williams or Clemente; that of no pooling is in
# Munson, whose spring was a slump.
#
# </details>
#
# **4.** Stein's paradox at its strangest: add a 19th "player" from another world, the share of
# imported cars among 45 in Chicago, say 20 of 45. Does he change the forecasts of the batters?
# Should he?
#
# <details><summary>Solution</summary>
#
# ```python
# cars = pd.concat(
#     [early.astype({"Player": str}), pd.DataFrame({"Player": ["cars"], "AB": 45, "Hits": 20})]
# )
# cars_fit = sample(hmlm.Model("p(Hits, AB) ~ 1 + (1 | Player)", cars, family="binomial"))
# print(cars_fit.summary())
# both = cars_fit.predict(cars.assign(AB=1))["estimate"].to_numpy()
# print(pd.Series(both, cars["Player"]).iloc[[0, 1, 17, 18]].round(3))
# print(f"RMSE of the batters: {np.sqrt(((both[:18] - truth) ** 2).mean()):.4f}")
# ```
#
# He does. The spread $\tau$ rises, because the cars lie far out, and so the batters are pooled
# less, as if the cars knew something of baseball. The theorem still holds for the sum of all 19.
# But a sum over things
# that nobody would sum is not a reason to pool them. Partial pooling takes the groups to be
# *exchangeable*: before seeing the data, you would not say of any that it should be higher than
# another. Whether that is so is a question about batters and cars, not about statistics.
#
# </details>
#
# ## References
#
# - Efron, B. and Morris, C. (1975). Data analysis using Stein's estimator and its generalizations.
#   *Journal of the American Statistical Association* 70, 311-319.
# - Efron, B. and Morris, C. (1977). Stein's paradox in statistics. *Scientific American* 236 (5),
#   119-127.
# - James, W. and Stein, C. (1961). Estimation with quadratic loss. *Proceedings of the Fourth
#   Berkeley Symposium* 1, 361-379.
# - Gelman, A. and others (2013). *Bayesian Data Analysis*, third edition. Chapters 5 and 7.
# - Stein, C. (1956). Inadmissibility of the usual estimator for the mean of a multivariate normal
#   distribution. *Proceedings of the Third Berkeley Symposium* 1, 197-206.
