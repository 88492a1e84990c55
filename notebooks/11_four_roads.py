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
# # Four roads to one answer: EM, REML, Gibbs and NUTS
#
# **The question.** Books and programs estimate the same multilevel model in different ways. Do they
# come to the same answer? What does each give that the others do not, and what does it cost?
#
# **The data.** The alcohol use of 82 adolescents at 14, 15 and 16 years of age (Curran, Stice and
# Chassin 1997), which the notebook `01_alcohol` introduces.
#
# **What you will learn.** How EM climbs, and why parameter expansion makes it faster; what REML
# maximises; how Gibbs and NUTS sample the same posterior without sharing code; where estimates of
# groups, p values and intervals come from on each road; and how a profile likelihood and a
# posterior differ.

# %%
import os
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import hmlm
from hmlm.plots.profiles import plot_profile

DRAWS = int(os.environ.get("HMLM_DRAWS", "1000"))  # of each of four chains

alcohol = hmlm.load_dataset("alcohol")
model = hmlm.Model("alcuse ~ coa + peer + time + (time | id)", alcohol)

# %% [markdown]
# ## One likelihood
#
# In matrices the model is $y = X\beta + Zb + \varepsilon$, with $b_j \sim \operatorname{Normal}(0,
# D)$ for each adolescent and $\varepsilon \sim \operatorname{Normal}(0, \sigma^2 I)$. The effects
# $b$ can be integrated out:
#
# $$y \sim \operatorname{Normal}(X\beta,\; V), \qquad V = Z\,(I \otimes D)\,Z' + \sigma^2 I.$$
#
# Here $D$ has three numbers, two variances and a covariance. If we knew them and $\sigma$, all else
# would be linear algebra:
#
# $$\hat\beta = (X'V^{-1}X)^{-1}X'V^{-1}y, \qquad
# \hat b = (I \otimes D)\,Z'V^{-1}(y - X\hat\beta).$$
#
# The roads differ in what they do about the four variance parameters: two look for their best
# values, two for their distribution.
#
# ## Road 1: EM
#
# *If only we knew the effects* $b_j$, then $D$ would be their average square. We do not, but given
# some $D$ we know their distribution. So go back and forth (Dempster, Laird and Rubin 1977; Laird
# and Ware 1982):
#
# - **E**: given $D$ and $\sigma$, find the expectation of $b_j b_j'$: the square of the estimate
#   *plus* its conditional variance;
# - **M**: put $D$ to the average of these over the adolescents, and $\sigma^2$ to the average
#   squared residual.
#
# The likelihood cannot fall. *ECME* (Liu and Rubin 1994) takes $\beta$ and $\sigma$ from the
# likelihood itself at each step; *PX-EM* (Liu, Rubin and Wu 1998) lets the effects be rescaled in
# the M-step and so corrects what the E-step took over from a wrong $D$.


# %%
def timed(method):
    start = time.perf_counter()
    fit = model.fit(method, random_seed=1, progressbar=False)
    return fit, time.perf_counter() - start


climbs = {"EM": "em", "ECME": "ecme", "PX-EM": "px-em"}
em = {name: timed(hmlm.EM(algorithm=algorithm)) for name, algorithm in climbs.items()}
em["PX-EM"][0].trace.round(4).iloc[[0, 1, 2, 3, 5, 10, -1]]

# %%
best = max(fit.log_likelihood for fit, _ in em.values())
fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.2), layout="constrained")
for (name, (fit, _)), color in zip(em.items(), ["#999999", "#E69F00", "#0072B2"], strict=True):
    left = np.maximum(best - fit.trace["log_likelihood"].to_numpy(), 1e-9)
    axes[0].plot(fit.trace.index, np.log10(left), color=color, label=name)
    axes[1].plot(fit.trace.index, fit.trace["sd_id[time]"], color=color, label=name)
axes[0].set(xlabel="iteration", ylabel="log10 of what is left to gain", ylim=(-8, 2))
axes[1].set(xlabel="iteration", ylabel="sd of the slopes", xlim=(-1, 60))
axes[0].legend()
for ax in axes:
    ax.spines[["top", "right"]].set_visible(False)

# %%
rows = {
    name: {"iterations": len(fit.trace) - 1, "log_likelihood": fit.log_likelihood, "seconds": s}
    for name, (fit, s) in em.items()
}
pd.DataFrame(rows).T.round(4)

# %% [markdown]
# All three climb to the same top. On the left a straight line means that each step gains the same
# *share* of what is left: convergence is linear, and its rate is how much of the "missing data",
# the effects, is really missing. Three points tell little about an adolescent's intercept and
# slope, so the rate is slow. PX-EM's line is the steepest.
#
# ## Road 2: REML
#
# Why not maximise the likelihood directly? Given $D/\sigma^2$ both $\beta$ and $\sigma$ have closed
# forms, so three numbers are left, and a quasi-Newton method with the gradient needs a few steps.
# *Restricted* maximum likelihood integrates $\beta$ out as well, which corrects for the degrees of
# freedom that $\beta$ has used. (The EM above did the same.)

# %%
reml, reml_seconds = timed(hmlm.REML(df="kenward-roger"))
ml, _ = timed(hmlm.ML())
print(f"{reml_seconds:.3f} seconds")
spreads = [fit.tidy(groups=False).query("component != 'population'") for fit in (ml, reml)]
pd.DataFrame(
    {
        "term": spreads[0]["component"] + " " + spreads[0]["term"],
        "ML": spreads[0]["estimate"],
        "REML": spreads[1]["estimate"],
    }
).round(3)

# %% [markdown]
# With 82 adolescents and four coefficients the correction is small. With eight groups it is not.
#
# ### Only here: p values with the right degrees of freedom
#
# How many independent observations is `coa` judged by, 246 or 82? Neither formula nor rule of thumb
# is exact for unbalanced data. Satterthwaite's approximation finds degrees of freedom from how
# precisely the variances are known; Kenward and Roger's (1997) also widens the standard errors.

# %%
rules = {"inner-outer": "nlme", "satterthwaite": "Satterthwaite", "kenward-roger": "Kenward-Roger"}
tests = {}
for rule, name in rules.items():
    table = model.fit(hmlm.REML(df=rule)).tidy(groups=False).query("component == 'population'")
    tests[name] = table.set_index("term")[["std_error", "df", "p_value"]]
pd.concat(tests, axis=1).round(4)

# %% [markdown]
# nlme counts rows for what varies within adolescents (`time`) and adolescents for what does not
# (`coa`, `peer`). That of `time` is too generous: slopes differ, so that growth is judged by
# adolescents too, and both other methods say so. Here nothing hangs on it.
#
# ## Road 3: Gibbs
#
# The posterior needs priors; they are those in `print(model)`. *Gibbs* sampling (Gelfand and others
# 1990) is EM with draws in the place of expectations. Given $D$ and $\sigma$, draw $\beta$ and all
# $b_j$ from their normal distribution; given these, draw $D$ and $\sigma$. Repeat.

# %%
gibbs, gibbs_seconds = timed(hmlm.Gibbs(draws=DRAWS))
print(gibbs.status)

# %% [markdown]
# ## Road 4: NUTS
#
# The No-U-Turn sampler (Hoffman and Gelman 2014) follows the gradient of the log posterior of
# $(\beta, D, \sigma)$, with the effects integrated out, and afterwards draws the effects from their
# exact distribution.

# %%
nuts, nuts_seconds = timed(hmlm.NUTS(draws=DRAWS, tune=DRAWS))
print(nuts.status)

# %% [markdown]
# ## Side by side

# %%
hmlm.compare(em["PX-EM"][0], reml, gibbs, nuts, groups=False)

# %% [markdown]
# - EM and REML agree to the digits shown, as they must: one function, one maximum.
# - Gibbs and NUTS agree within their Monte Carlo errors. They share no code for the likelihood:
#   that they agree is a test of both.
# - The coefficients agree across all four. The **standard deviations** need not: REML reports the
#   top of a likelihood, the posterior its centre of mass. Those of the **correlation** have
#   opposite signs, and its interval shows why that is nothing to explain: three occasions say next
#   to nothing about it.
#
# How far are Gibbs and NUTS apart, in units of their Monte Carlo error?


# %%
def moments(fit):
    table = hmlm.tidy(fit, groups=False)
    name = table["component"] + " " + table["term"]
    return table.set_index(name)[["estimate", "std_error", "ess_bulk"]]


a, b = moments(gibbs), moments(nuts)
error = np.sqrt(a["std_error"] ** 2 / a["ess_bulk"] + b["std_error"] ** 2 / b["ess_bulk"])
pd.DataFrame(
    {
        "Gibbs": a["estimate"],
        "NUTS": b["estimate"],
        "difference / its error": (a["estimate"] - b["estimate"]) / error,
        "ESS Gibbs": a["ess_bulk"],
        "ESS NUTS": b["ess_bulk"],
    }
).round(3)

# %%
seconds = {name: s for name, (_, s) in em.items()}
seconds |= {"REML": reml_seconds, "Gibbs": gibbs_seconds, "NUTS": nuts_seconds}
slowest = {"Gibbs": a["ess_bulk"].min(), "NUTS": b["ess_bulk"].min()}
clock = pd.DataFrame({"seconds": seconds, "smallest ESS": slowest}).loc[list(seconds)]
clock["seconds for 1,000"] = 1000 * clock["seconds"] / clock["smallest ESS"]
clock.round(3)

# %% [markdown]
# (Times are those of this run, the first of a session included; draws differ in worth, so compare
# the last column.)
#
# ## The adolescents: modes or draws
#
# The classical roads *predict* the effects: $\hat b$ above, with the estimates put in for $D$ and
# $\sigma$. These are the best linear unbiased predictors (BLUPs), in other words the conditional
# modes. The Bayesian roads draw them together with all else. How do they compare?

# %%
keys = {"index": "level", "columns": "term"}
blup = reml.tidy().query("component == 'group'")
drawn = nuts.tidy().query("component == 'group'")
ratio = drawn["std_error"].to_numpy() / blup["std_error"].to_numpy()
pd.DataFrame(
    {
        "correlation of estimates": [
            np.corrcoef(
                blup.query("term == @t")["estimate"].astype(float),
                drawn.query("term == @t")["estimate"].astype(float),
            )[0, 1]
            for t in ("Intercept", "time")
        ],
        "average sd, posterior / BLUP": [
            ratio[(blup["term"] == t).to_numpy()].mean() for t in ("Intercept", "time")
        ],
    },
    index=["Intercept", "time"],
).round(3)

# %% [markdown]
# The estimates are nearly the same. The posterior's sds are what they should be where the variances
# are not known but estimated; the BLUP's take them as known. With 82 adolescents the price is
# small.
#
# ## Profile beside posterior
#
# Without draws, an honest interval of a standard deviation comes from its *profile likelihood*:
# hold the parameter at a value, maximise over all others, and keep the values that a
# likelihood-ratio test would not reject. Beside it the posterior: where the profile *maximises*
# over what is not asked for, the posterior *averages*.

# %%
shown = ["sd_id[Intercept]", "sd_id[time]", "cor_id[Intercept, time]", "sigma"]
axes = plot_profile(reml, nuts, shown)

# %%
profile = reml.confint("profile").set_index(["component", "term"])[["lower", "upper"]]
posterior = nuts.tidy(groups=False).set_index(["component", "term"])[["lower", "upper"]]
pd.concat({"profile": profile, "posterior": posterior}, axis=1).round(3)

# %% [markdown]
# The standard deviations of the effects are much the same, and the posterior of `sigma` lies a
# little to the right. The correlation is where they part. The profile reaches 1, where the
# likelihood does not fall off before the edge; the prior of the posterior, LKJ, thinks a perfect
# correlation unlikely. With data this thin, say which you used.
#
# ## Which road?
#
# - **EM** gives a likelihood that cannot fall, and is easy to write for a new model. It is slow
#   near the top, and has no standard errors of its own.
# - **REML** is the fastest, and gives p values with Satterthwaite's or Kenward and Roger's degrees
#   of freedom and the tables of nlme and lme4. It has no honest error of a variance, and may end at
#   a variance of zero or a correlation of 1.
# - **Gibbs** gives a posterior from steps that one can check by hand. Its draws depend on each
#   other, and it needs conjugacy, or a Metropolis step.
# - **NUTS** gives a posterior under priors of any kind, for any family. It needs a gradient, and
#   its diagnostics have to be read.
#
# They are not rivals. Two roads to one number are the cheapest test that a number is right.
#
# ## Exercises
#
# **1.** Write one EM step of your own, for the model with an intercept for each adolescent and no
# predictors, $y_{ij} = \mu + b_j + \varepsilon_{ij}$. Iterate, and compare with
# `hmlm.ML()`.
#
# <details><summary>Solution</summary>
#
# ```python
# simple = hmlm.Model("alcuse ~ 1 + (1 | id)", alcohol)
# y = alcohol["alcuse"].to_numpy()
# who = alcohol["id"].astype("category").cat.codes.to_numpy()
# n = np.bincount(who)
# mu, tau2, s2 = y.mean(), 0.1, 0.1
# for step in range(200):
#     v = 1 / (1 / tau2 + n / s2)  # E: conditional variance and mean of each effect
#     b = v / s2 * np.bincount(who, y - mu)
#     mu = (y - b[who]).mean()  # M
#     tau2 = (b**2 + v).mean()
#     s2 = ((y - mu - b[who]) ** 2 + v[who]).mean()
# check = simple.fit(hmlm.ML()).estimates
# print(mu, np.sqrt(tau2), np.sqrt(s2))
# print(check["beta"][0], check["sd_id"][0], check["sigma"])
# ```
#
# Forget the `+ v` in the M-step and the variance shrinks at each step towards zero: that is what
# "plugging in" the estimated effects does.
#
# </details>
#
# **2.** What does EM do where a variance is zero? Fit `Yield ~ 1 + (1 | Batch)` to the data
# `dyestuff2`, whose batches differ no more than chance, by the three algorithms.
#
# <details><summary>Solution</summary>
#
# ```python
# dye = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff2"))
# for algorithm in ("em", "ecme", "px-em"):
#     fit = dye.fit(hmlm.EM(algorithm=algorithm))
#     print(algorithm, len(fit.trace) - 1, fit.estimates["sd_Batch"].round(4), fit.status.converged)
# print(dye.fit(hmlm.REML()).status)
# ```
#
# EM and ECME creep: near zero each step takes off a share proportional to the variance itself.
# PX-EM takes off a constant share, and REML's optimiser walks to the edge at once.
#
# </details>
#
# **3.** Take every third adolescent only. For which parameters do REML and the posterior part
# company, and which intervals change most?
#
# <details><summary>Solution</summary>
#
# ```python
# few = alcohol[alcohol["id"].astype(int) % 3 == 0]
# small = hmlm.Model("alcuse ~ coa + peer + time + (time | id)", few)
# small_fits = [
#     small.fit(hmlm.REML(df="kenward-roger")),
#     small.fit(hmlm.NUTS(draws=DRAWS, tune=DRAWS), random_seed=1, progressbar=False),
# ]
# print(hmlm.compare(*small_fits, groups=False))
# ```
#
# The coefficients differ by a fraction of their standard errors. The standard deviations move
# apart, and the correlation more than all: the less the data say, the more it matters whether one
# maximises or averages.
#
# </details>
#
# **4.** How does the ESS of Gibbs compare with that of NUTS, for `beta` and for the correlation,
# and why?
#
# <details><summary>Solution</summary>
#
# ```python
# print((b_ess := moments(nuts)["ess_bulk"] / moments(gibbs)["ess_bulk"]).round(2))
# ```
#
# Gibbs draws coefficients and effects together from their exact distribution, so that `beta` is
# nearly independent from draw to draw. `D` moves less: given the effects of 82 adolescents it can
# only go a little way in each step. NUTS never sees the effects, and moves all parameters at once.
#
# </details>
#
# ## References
#
# - Bates, D., Mächler, M., Bolker, B. and Walker, S. (2015). Fitting linear mixed-effects models
#   using lme4. *Journal of Statistical Software* 67(1).
# - Dempster, A. P., Laird, N. M. and Rubin, D. B. (1977). Maximum likelihood from incomplete data
#   via the EM algorithm. *Journal of the Royal Statistical Society B* 39, 1-38.
# - Gelfand, A. E., Hills, S. E., Racine-Poon, A. and Smith, A. F. M. (1990). Illustration of
#   Bayesian inference in normal data models using Gibbs sampling. *JASA* 85, 972-985.
# - Hoffman, M. D. and Gelman, A. (2014). The No-U-Turn sampler. *Journal of Machine Learning
#   Research* 15, 1593-1623.
# - Kenward, M. G. and Roger, J. H. (1997). Small sample inference for fixed effects from restricted
#   maximum likelihood. *Biometrics* 53, 983-997.
# - Laird, N. M. and Ware, J. H. (1982). Random-effects models for longitudinal data. *Biometrics*
#   38, 963-974.
# - Liu, C. and Rubin, D. B. (1994). The ECME algorithm. *Biometrika* 81, 633-648.
# - Liu, C., Rubin, D. B. and Wu, Y. N. (1998). Parameter expansion to accelerate EM: the PX-EM
#   algorithm. *Biometrika* 85, 755-770.
