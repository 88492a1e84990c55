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
# # When sampling fails: the funnel, and what to do about it
#
# **The question.** A posterior comes as draws. How do you notice that the draws are wrong? Why are
# hierarchical models so prone to it? And what cures it?
#
# **The data.** The eight schools of Rubin (1981): eight estimates of the effect of a course, with
# their standard errors. Few and noisy, so that little is known about how much schools differ. That
# is what makes them hard to sample.
#
# **What you will learn.** To read R-hat, the effective sample size (ESS), divergences and BFMI;
# what Neal's *funnel* is; why writing the same model another way helps; why integrating the group
# effects out does away with the problem; and how `fit.status`, `hmlm.examine` and `hmlm.treat`
# tell you all this.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import hmlm
from hmlm.fitting.treatment import treatment_table
from hmlm.plots.funnel import plot_funnel

DRAWS = int(os.environ.get("HMLM_DRAWS", "1000"))  # of each of four chains

schools = hmlm.load_dataset("eight_schools")
model = hmlm.Model("se(y, sigma) ~ 1 + (1 | school)", schools)
print(model)

# %% [markdown]
# ## A fit that looks like an answer
#
# hmlm has its own way of sampling such a model, and we come to it. First the way of the textbook:
# hand the model, as the equations have it, to PyMC's NUTS. The effect of each school is a
# parameter, $b_j \sim \operatorname{Normal}(0, \tau^2)$. This is called the *centred* form.
# (`target_accept=0.8` is PyMC's default; hmlm's is more careful.)

# %%
textbook = hmlm.NUTS(engine="pymc", centered=True, target_accept=0.8, draws=DRAWS, tune=DRAWS)
centred = model.fit(textbook, random_seed=3, progressbar=False)
hmlm.tidy(centred, groups=False)[["component", "estimate", "lower", "upper"]].round(2)

# %% [markdown]
# A mean and a standard deviation, with intervals. Nothing in these numbers warns you. So the first
# thing to read is never the table:

# %%
print(centred.status)

# %% [markdown]
# ## Reading the signs
#
# **Do the chains agree?** Four chains started in different places should draw from the same
# distribution. *R-hat* compares the variance of all draws with that inside the (split) chains. It
# is 1 where they agree, and values above 1.01 are a warning. A picture says it best:

# %%
tau = centred.variable("sd_school")[..., 0]  # shape (chains, draws)
fig, ax = plt.subplots(figsize=(7.2, 2.6), layout="constrained")
for chain, color in enumerate(["#0072B2", "#E69F00", "#009E73", "#CC79A7"]):
    ax.plot(tau[chain], color=color, linewidth=0.6, label=f"chain {chain}")
ax.set(yscale="log", xlabel="draw", ylabel="tau (log scale)")
ax.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
ax.set_yticks([], [], minor=True)
ax.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
ax.spines[["top", "right"]].set_visible(False)

# %%
by_chain = pd.DataFrame({"mean of tau": tau.mean(axis=1), "share below 1": (tau < 1).mean(axis=1)})
by_chain.index = [f"chain {c}" for c in range(len(by_chain))]
by_chain.round(3)

# %% [markdown]
# Look at the flat stretches. One chain (green) stands still for half of its draws: it has come to a
# small value of $\tau$, and every step from there is refused. Others hardly go below 1. How likely
# small values of $\tau$ are is a question of substance (do the schools differ at all?), and each
# chain has another answer.
#
# **How many draws are these?** Draws that follow each other closely say little new. The *effective
# sample size* is the number of independent draws that would give the mean as precisely. The Monte
# Carlo standard error of a mean is the posterior's standard deviation over the root of the ESS:

# %%
table = hmlm.tidy(centred, groups=False).set_index("component")[["estimate", "std_error"]]
ess = hmlm.tidy(centred, groups=False).set_index("component")["ess_bulk"]
table.assign(draws=tau.size, ess=ess, monte_carlo_error=table["std_error"] / np.sqrt(ess)).round(2)

# %% [markdown]
# For trustworthy means and sds hmlm asks for an ESS of 400, as Vehtari and others (2021) do, and
# the same in the tails for the ends of intervals.
#
# **Does the sampler see what it should?** NUTS follows a trajectory on the surface of the
# posterior, in small steps, and knows that an energy must stay the same along it. Where the surface
# bends more sharply than the steps can follow, the energy explodes: a *divergence*. One is
# a warning about a place, and the sampler cannot tell you what lies behind it. *BFMI* says whether
# the draws move freely between levels of energy; below 0.3 they do not.

# %%
numbers = ["divergences", "max_r_hat", "min_ess_bulk", "min_ess_tail", "min_bfmi"]
print({k: round(centred.status.numbers[k], 2) for k in numbers})

# %% [markdown]
# ## Why: the funnel
#
# `examine` looks for the reason:

# %%
for _, found in hmlm.examine(centred).findings.iterrows():
    print(f"- {found['finding']}: {found['evidence']}")

# %% [markdown]
# And here is the place itself, for two schools: $\tau$ on a log scale against the effect of the
# school.

# %%
axes = plot_funnel(centred, levels=["A", "H"], size=(7.6, 4))

# %% [markdown]
# If $\tau$ is small, all effects must be small, so that the cloud narrows downwards: Neal's (2003)
# *funnel*. How wide is it? Given $\tau$ (and the mean), the effect of a school with standard error
# $\sigma_j$ has the standard deviation $(1/\tau^2 + 1/\sigma_j^2)^{-1/2}$. For school A,
# $\sigma_j = 15$:

# %%
at = np.array([0.01, 0.1, 1.0, 10.0, 100.0])
widths = pd.DataFrame({"tau": at, "width of b_A": (at**-2 + 15.0**-2) ** -0.5})
widths.round(3)

# %% [markdown]
# A step that is right for the bowl at the top is a thousand times too long in the neck. NUTS has
# *one* step size. It settles on one that works mostly; then it cannot enter the neck, or, once in
# it, can hardly leave. That is no weakness of NUTS: random-walk and Gibbs samplers of $(b, \tau)$
# have the same trouble, and do not notice.
#
# Smaller steps (`target_accept=0.99`) push the trouble further down the neck, and cost time.
# Exercise 1 tries it.
#
# ## Cure 1: write the model another way
#
# Put $b_j = \tau z_j$ with $z_j \sim \operatorname{Normal}(0, 1)$. It is the same model. But now
# the sampler moves in $(z, \tau)$, and a priori these have nothing to do with each other: no
# funnel. This is the *non-centred* form (Papaspiliopoulos and others 2007; Betancourt and Girolami
# 2015), here with hmlm's own, somewhat smaller steps (a `target_accept` of 0.9).

# %%
rewritten = hmlm.NUTS(engine="pymc", centered=False, draws=DRAWS, tune=DRAWS)
non_centred = model.fit(rewritten, random_seed=3, progressbar=False)
print(non_centred.status)

# %% [markdown]
# Is non-centred always better? Look at the width of $z_j = b_j / \tau$, given $\tau$. With the
# large standard errors of the schools it is the same over the whole range that matters. But suppose
# each school had tested a hundred times as many pupils:

# %%
widths["z, standard error 15"] = widths["width of b_A"] / at
widths["z, standard error 1.5"] = (at**-2 + 1.5**-2) ** -0.5 / at
widths.round(3)

# %% [markdown]
# Then $z$ has a funnel of its own, upside down: as $\tau$ grows, the data hold $b_j$ fast, and
# $z_j = b_j / \tau$ must shrink. **Groups with little data want the non-centred form, groups with
# much the centred one.** For proportions and counts, where effects have to be sampled, hmlm chooses
# for each group by how much its own rows say.
#
# ## Cure 2: do not walk there at all
#
# In a Gaussian model there is something better. Given the mean and $\tau$ the effects are normal,
# so that they can be integrated out with paper and pencil: $y_j \sim \operatorname{Normal}(\mu,
# \tau^2 + \sigma_j^2)$. Two parameters are left instead of ten, and no funnel, because what made it
# is gone. NUTS samples $(\mu, \tau)$; afterwards each draw of them gets one draw of the effects
# from their exact normal distribution. That is what `hmlm.NUTS()` does.

# %%
integrated = model.fit(hmlm.NUTS(draws=DRAWS, tune=DRAWS), random_seed=3, progressbar=False)
print(integrated.status)
axes = plot_funnel(integrated, levels=["A", "H"], size=(7.6, 4))

# %% [markdown]
# The funnel is there, down to its tip: it belongs to the posterior. Only nobody has to climb into
# it.
#
# ## Is it right?
#
# With two parameters we need no sampler at all. Integrate over a grid: the priors, times the
# likelihood of the eight schools.

# %%
priors = model.priors.set_index("parameter")["prior"]
print(priors.to_dict())
grid_tau = np.exp(np.linspace(np.log(0.001), np.log(200), 600))
grid_mu = np.linspace(-60, 70, 800)
y, se = schools["y"].to_numpy(float), schools["sigma"].to_numpy(float)
V = grid_tau[:, None] ** 2 + se**2
scale, location = y.std(ddof=1), y.mean()
log_p = -0.5 * np.log(V).sum(axis=1)[:, None] + sum(
    -0.5 * (y[j] - grid_mu) ** 2 / V[:, [j]] for j in range(8)
)
log_p = log_p - 0.5 * ((grid_mu - location) / (2.5 * scale)) ** 2
log_p = log_p - 2.5 * np.log1p((grid_tau[:, None] / scale) ** 2 / 4)  # half-student-t(4)
p = np.exp(log_p - log_p.max()).sum(axis=1) * grid_tau  # on the grid of log tau
p /= p.sum()


def shares(draws):
    return [np.mean(draws < limit) for limit in (0.5, 1, 5, 10)]


exact = [p[grid_tau < limit].sum() for limit in (0.5, 1, 5, 10)]
fits = {"centred": centred, "non-centred": non_centred, "integrated": integrated}
beside = {name: shares(fit.variable("sd_school")) for name, fit in fits.items()}
columns = [f"P(tau < {limit})" for limit in (0.5, 1, 5, 10)]
pd.DataFrame({"by hand": exact, **beside}, index=columns).T.round(3)


# %%
def figures(fit):
    seconds = fit.draws["posterior"].attrs.get("sampling_time", np.nan)
    return {**{k: fit.status.numbers[k] for k in numbers}, "seconds": seconds}


pd.DataFrame({name: figures(fit) for name, fit in fits.items()}).T.round(2)

# %% [markdown]
# Integrated and non-centred agree with the sums by hand. The centred draws never saw a $\tau$ below
# one half, and no number of digits in their table said so. The best effective sample size comes
# from the model with the effects integrated out, in the shortest time: fewer parameters, and
# nothing to get stuck in.
#
# ## The doctor
#
# You need not remember all this. `treat` takes a fit that is unhappy, tries remedies in order of
# promise, and returns the first that works. It changes how the model is sampled, never the model.

# %%
treated = hmlm.treat(centred)
treatment_table(treated)[["try", "divergences", "max_r_hat", "min_ess"]].round(2)

# %% [markdown]
# What no treatment can cure is a model that asks more than the data say. If trouble remains,
# `examine` points to it: a predictor far from zero, groups that separate the outcomes, a parameter
# that only its prior determines. "When you have computational problems, often there's a problem
# with your model" (Gelman 2008).
#
# **A routine.** (1) `print(fit.status)`. (2) If it complains, `print(hmlm.examine(fit))`. (3)
# `hmlm.treat(fit)`, or the remedy that (2) names. (4) Only then the estimates.
#
# ## Exercises
#
# **1.** Take smaller steps: the centred form with `target_accept=0.99`. What becomes of the
# divergences, the ESS and the time?
#
# <details><summary>Solution</summary>
#
# ```python
# careful = hmlm.NUTS(engine="pymc", centered=True, target_accept=0.99, draws=DRAWS, tune=DRAWS)
# slow = model.fit(careful, random_seed=3, progressbar=False)
# print(pd.DataFrame({"0.8": figures(centred), "0.99": figures(slow)}).round(2))
# print(shares(slow.variable("sd_school")))
# ```
#
# Divergences become fewer or vanish. That alone is no cure: read the ESS and R-hat of `tau`, and
# compare the shares with those by hand. A sampler that creeps without diverging is still one that
# has not been everywhere.
#
# </details>
#
# **2.** Compute R-hat of $\tau$ yourself. Cut each chain into halves. With $W$ the average variance
# inside the $m$ half chains of $n$ draws, and $B/n$ the variance of their means, R-hat is
# $\sqrt{((n-1)/n\, W + B/n) / W}$.
#
# <details><summary>Solution</summary>
#
# ```python
# def r_hat(draws):
#     halves = draws.reshape(2 * len(draws), -1)
#     n = halves.shape[1]
#     W, between = halves.var(axis=1, ddof=1).mean(), halves.mean(axis=1).var(ddof=1)
#     return np.sqrt(((n - 1) / n * W + between) / W)
#
#
# for name, fit in fits.items():
#     theirs = hmlm.tidy(fit, groups=False)["r_hat"].iloc[1]
#     print(name, round(r_hat(fit.variable("sd_school")[..., 0]), 3), round(theirs, 3))
# ```
#
# hmlm takes the larger of two such figures, of the ranks of the draws and of their distances from
# the median (Vehtari and others 2021), so that it works for long tails too. The two agree about
# which fit is bad.
#
# </details>
#
# **3.** Give the schools standard errors a tenth as large, and sample centred with PyMC again. Does
# the funnel still hurt?
#
# <details><summary>Solution</summary>
#
# ```python
# precise = schools.assign(sigma=schools["sigma"] / 10)
# sharp = hmlm.Model("se(y, sigma) ~ 1 + (1 | school)", precise)
# fine = sharp.fit(textbook, random_seed=3, progressbar=False)
# print(fine.status)
# print(np.quantile(fine.variable("sd_school"), [0.025, 0.5, 0.975]).round(1))
# ```
#
# No. The data now say that $\tau$ is far from zero, the neck of the funnel has no probability, and
# nothing diverges. But draws are still worth little: the data fix the *sum* of the mean and a
# school's effect, so that the two slide against each other. Integrating the effects out,
# `hmlm.treat(fine)`, cures that too.
#
# </details>
#
# **4.** Someone proposes to cure the centred fit by a prior that keeps $\tau$ away from zero. What
# would you answer?
#
# <details><summary>Solution</summary>
#
# ```python
# print(f"P(tau < 1) = {np.mean(integrated.variable('sd_school') < 1):.2f}")
# ```
#
# It would sample well, and answer another question: it rules out that the schools are much alike,
# which the data hold possible. A prior is for what you know about schools, not for the comfort of a
# sampler.
#
# </details>
#
# ## References
#
# - Betancourt, M. and Girolami, M. (2015). Hamiltonian Monte Carlo for hierarchical models. In
#   *Current Trends in Bayesian Methodology with Applications*. CRC Press.
# - Gelman, A. (2008). The folk theorem of statistical computing. *Statistical Modeling, Causal
#   Inference, and Social Science*, 13 May 2008.
# - Neal, R. M. (2003). Slice sampling. *Annals of Statistics* 31, 705-767. Section 8.
# - Papaspiliopoulos, O., Roberts, G. O. and Sköld, M. (2007). A general framework for the
#   parametrization of hierarchical models. *Statistical Science* 22, 59-73.
# - Rubin, D. B. (1981). Estimation in parallel randomized experiments. *Journal of Educational
#   Statistics* 6, 377-401.
# - Vehtari, A., Gelman, A., Simpson, D., Carpenter, B. and Bürkner, P.-C. (2021).
#   Rank-normalization, folding, and localization: an improved R-hat for assessing convergence of
#   MCMC. *Bayesian Analysis* 16, 667-718.
