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
# # Eight schools, and how much the groups differ
#
# **The question.** Eight schools tried a course that prepares for a test. In school A the scores
# rose by 28 points, in school C they fell by 3. Is the course better in A? How much of the
# difference between schools is real?
#
# **The data.** Rubin (1981): for each school the estimated effect `y` of the course and its
# standard error `sigma`. No scores of pupils: this is a meta-analysis of eight experiments. It is
# the standard example of Gelman and others (2013, section 5.5), whom we call BDA and follow.
#
# **What you will learn.** Everything depends on one number, the standard deviation $\tau$ of the
# true effects between schools. You will see what happens at every value of $\tau$ from zero to
# infinity; what eight numbers can say of $\tau$, and what they leave to the prior; how to check a
# posterior against one computed without any sampling; how to predict a ninth school; what the
# *funnel* is and why it is not met here; and how the same fit reads as a meta-analysis. At the
# end the same idea with binomial counts: 71 groups of rats.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from scipy import stats

import hmlm

DRAWS = int(os.environ.get("HMLM_DRAWS", "1000"))  # of each of four chains


def sample(model):
    return model.fit(hmlm.NUTS(draws=DRAWS, tune=DRAWS), random_seed=1, progressbar=False)


schools = hmlm.load_dataset("eight_schools")
schools.T

# %% [markdown]
# ## Two answers that cannot both be right
#
# **They are all alike.** If the true effect is the same everywhere, the best estimate of it is the
# average of the eight, each weighted by its precision $1 / \sigma_j^2$: complete pooling. Cochran's
# Q asks whether the eight differ by more than their standard errors. Under *no* difference it has
# a chi-squared distribution with 7 degrees of freedom.

# %%
model = hmlm.Model("se(y, sigma) ~ 1 + (1 | school)", schools)
complete = model.with_pooling("complete").fit(hmlm.OLS())
alone = model.with_pooling("none").fit(hmlm.OLS())
reml = model.fit(hmlm.REML())
common = hmlm.tidy(complete).loc[0]
Q, df = reml.status.numbers["Q"], reml.status.numbers["Q_df"]
Markdown(
    f"Common effect: **{common['estimate']:.1f}**, standard error {common['std_error']:.1f}. "
    f"Q = {Q:.2f} with {df:.0f} degrees of freedom, p = {stats.chi2.sf(Q, df):.2f}."
)

# %% [markdown]
# Nothing speaks against it. So school A has the effect of all the others, and the 28 points are
# luck. Would you bet, at even odds, that the true effect in A is *below* 7.7? And in C as well?
#
# **Each stands alone.** Then A's effect is 28 with a standard error of 15, and there is an even
# chance that it is *above* 28. That is no better: with eight noisy estimates the highest of them is
# high partly by luck. Both answers are too sure of something. `se(y, sigma)` in the formula says
# that the standard errors are known; the rest is a multilevel model with one row in each group:
#
# $$ y_j \sim \operatorname{Normal}(\theta_j,\; \sigma_j^2), \qquad
# \theta_j \sim \operatorname{Normal}(\mu,\; \tau^2). $$
#
# Complete pooling says $\tau = 0$, no pooling $\tau = \infty$. Partial pooling asks the data.
#
# ## What the data say of $\tau$
#
# First with BDA's priors: flat for the mean, flat for $\tau$.

# %%
flat = model.with_priors(Intercept=hmlm.Prior("flat"), sd=hmlm.Prior("half-flat"))
fit = sample(flat)
print(fit.status)
hmlm.compare(fit, reml, alone, complete)

# %% [markdown]
# REML gives one value for $\tau$, the most likely one: exactly zero, with a warning. All schools
# then have the same estimate, as under complete pooling. The posterior says more: $\tau$ is
# anywhere between zero and twenty. Zero is the most likely *single* value, and yet nearly all of
# the probability is elsewhere.
#
# ## From zero to infinity
#
# Given $\tau$ everything has a closed form (BDA, equations 5.17 to 5.20). The estimate of a school
# is a weighted mean of its own and the common one,
#
# $$ \operatorname{E}(\theta_j \mid \tau, y) = (1 - B_j)\, y_j + B_j\, \hat\mu(\tau), \qquad
# B_j = \frac{\sigma_j^2}{\sigma_j^2 + \tau^2}. $$
#
# `plot_conditional` draws it (BDA, figures 5.5 to 5.7), with the posterior of $\tau$ below.

# %%
axes = hmlm.plot_conditional(fit)

# %% [markdown]
# Read it from left to right.
#
# - At $\tau = 0$ all curves start in one point: complete pooling. At infinity each ends in its own
#   estimate: no pooling. *Partial pooling is everything in between*, and the histogram below says
#   how much weight each place has.
# - Where the weight is, between 0 and 10, the curves are still close together: school A is
#   expected at about 11, not at 28.
# - The curves need not keep their order. C is estimated lowest on its own, but with the standard
#   error 16 it is believed less than E, with 9. Where the weight is, E is the lowest.
# - The middle panel: a small $\tau$ also makes every school's effect better known. Sharing
#   information is worth something only if the schools are alike.
#
# ## Is the posterior right? A check without sampling
#
# Only $\tau$ has no closed form, and one number is easily integrated on a grid. With $\mu$ and
# the $\theta_j$ integrated out (BDA, equation 5.21),
#
# $$ p(\tau \mid y) \propto p(\tau)\, V_\mu^{1/2} \prod_j (\sigma_j^2 + \tau^2)^{-1/2}
# \exp\left( -\frac{(y_j - \hat\mu)^2}{2 (\sigma_j^2 + \tau^2)} \right). $$
#
# Averaging the conditional means over this density gives the exact answer.

# %%
y, sigma = schools["y"].to_numpy(float), schools["sigma"].to_numpy(float)
STEP = 0.01
taus = np.arange(STEP / 2, 400, STEP)  # midpoints


def exact(prior_density, y=y, sigma=sigma):
    """Weights of the taus, and posterior mean and sd of mu and of every school, by quadrature."""
    total = sigma**2 + taus[:, None] ** 2  # rows taus, columns schools
    V = 1 / (1 / total).sum(axis=1)
    mu = V * (y / total).sum(axis=1)
    log_p = 0.5 * np.log(V) - 0.5 * (np.log(total) + (y - mu[:, None]) ** 2 / total).sum(axis=1)
    weight = prior_density(taus) * np.exp(log_p - log_p.max())
    weight /= weight.sum()
    B = sigma**2 / total
    theta = np.column_stack([mu, (1 - B) * y + B * mu[:, None]])
    variance = np.column_stack([V, B * taus[:, None] ** 2 + B**2 * V[:, None]])
    mean = weight @ theta
    sd = np.sqrt(weight @ (variance + (theta - mean) ** 2))
    return weight, pd.DataFrame({"mean": mean, "sd": sd}, index=["mu", *schools["school"]])


weight, by_quadrature = exact(np.ones_like)
effects = fit.variable("beta") + fit.variable("b_school")[..., 0]  # chain, draw, school
draws = np.concatenate([fit.variable("beta"), effects], axis=-1).reshape(-1, 9)
by_sampling = pd.DataFrame({"mean": draws.mean(0), "sd": draws.std(0)}, index=by_quadrature.index)
pd.concat({"exact": by_quadrature, "sampled": by_sampling}, axis=1).round(2)

# %%
tau_draws = fit.variable("sd_school").ravel()


def quantile(weight, prob):
    return np.interp(prob, np.cumsum(weight), taus)


probs = [0.025, 0.25, 0.5, 0.75, 0.975]
pd.DataFrame(
    {"exact": quantile(weight, probs), "sampled": np.quantile(tau_draws, probs)}, index=probs
).rename_axis("quantile of tau").round(1)

# %% [markdown]
# The two agree within what some thousand draws leave open: tenths for the means, more far out in
# the tail of $\tau$, where draws are rare. When you meet a new tool, give it a problem whose
# answer you know.
#
# ## Questions that need the draws
#
# With draws of all schools together, ask what you like. How sure is it that the course is better in
# A than in C? That it is the best in A? That A's effect is above 28, the even chance of no pooling?

# %%
A, C = effects[..., 0].ravel(), effects[..., 2].ravel()
Markdown(
    f"P(A better than C) = {(A > C).mean():.2f}; "
    f"P(A best of eight) = {(effects.argmax(-1) == 0).mean():.2f}; "
    f"P(effect in A > 28) = {(A > 28).mean():.2f}; "
    f"P(the largest of the eight effects > 28) = {(effects.max(-1) > 28).mean():.2f}."
)

# %%
axes = hmlm.plot_ranks(fit)

# %% [markdown]
# A league table of these schools would be worth little: each of the eight may be at the top or at
# the bottom. A is the likeliest best school, and still more likely not the best.
#
# ## What the prior decides
#
# Eight schools say little about $\tau$, so the prior matters. Four that have been proposed:
#
# - **flat**: BDA's first choice; it needs three schools or more, and has the longest tail;
# - **half-Cauchy(25)**: BDA, section 5.7: it rules out $\tau$ in the hundreds and little else;
# - **half-Cauchy(5)**: more weight near zero, with a heavy tail for surprises;
# - **half-normal(5)**: someone who is sure that no course makes schools differ by 20 points. (The
#   test's own scale has a standard deviation of about 100.)

# %%
priors = {
    "flat": ("half-flat", {}, np.ones_like),
    "half-Cauchy(25)": ("half-cauchy", {"beta": 25}, stats.halfcauchy(scale=25).pdf),
    "half-Cauchy(5)": ("half-cauchy", {"beta": 5}, stats.halfcauchy(scale=5).pdf),
    "half-normal(5)": ("half-normal", {"sigma": 5}, stats.halfnorm(scale=5).pdf),
}
rows, weights = {}, {}
for name, (kind, parameters, density) in priors.items():
    other = fit if name == "flat" else sample(flat.with_priors(sd=hmlm.Prior(kind, **parameters)))
    weights[name], table = exact(density)
    own = other.variable("beta") + other.variable("b_school")[..., 0]
    tau = other.variable("sd_school").ravel()
    rows[name] = {
        "tau, median": np.median(tau),
        "tau, 97.5%": np.quantile(tau, 0.975),
        "mu": other.variable("beta").mean(),
        "A": own[..., 0].mean(),
        "A, exact": table.loc["A", "mean"],
        "E": own[..., 4].mean(),
        "P(A > C)": (own[..., 0] > own[..., 2]).mean(),
    }
pd.DataFrame(rows).T.round(2)

# %%
fig, ax = plt.subplots(figsize=(6.6, 3.2), layout="constrained")
colors = ["#777777", "#56B4E9", "#0072B2", "#D55E00"]
shown = taus < 30
for (name, own), color in zip(weights.items(), colors, strict=True):
    ax.plot(taus[shown], own[shown] / STEP, color=color, label=name, linewidth=1.8)
    density = priors[name][2](taus[shown])
    if name != "flat":  # a flat prior has no density: it lies at zero everywhere
        ax.plot(taus[shown], density, color=color, linestyle=":", linewidth=1.2)
ax.set(xlabel="between-school sd tau", ylabel="density", xlim=(0, 30), ylim=(0, None))
ax.legend(title="posterior (dotted: its prior)", frameon=False)
ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# The centre of all schools, $\mu$, hardly cares. The upper end of $\tau$ does: it is twice as
# high under the flat prior as under the half-normal. The estimate of A moves by about two points,
# which is little beside its standard deviation. So report the centre with confidence, and $\tau$
# with its prior beside it. `sensitivity` says so without refitting: it asks what a little more or
# less of the prior, or of the data, would do.

# %%
default = sample(model)
table = model.sensitivity(default)
table[["component", "term", "prior", "likelihood", "verdict"]].round(3)

# %% [markdown]
# These are the default priors: a wide normal for the mean, and for $\tau$ a half-t with 4 degrees
# of freedom and the scale of `y`. The mean is settled by the data. For $\tau$ the prior counts as
# well, and the verdict tells you to look closer; the table and the figure above are that look.
#
# ## A ninth school
#
# Another school asks what the course will do for it. Three questions, from the narrow to the wide:
# the average effect over schools; the true effect in *this* school; and what an experiment there,
# with a standard error of 12, would show.

# %%
ninth = pd.DataFrame({"school": ["I"], "sigma": [12.0]})
answers = {
    "average of schools": default.predict(ninth, groups="population"),
    "true effect in a ninth": default.predict(ninth, groups="new", random_seed=1),
    "its experiment": default.predict(ninth, "response", groups="new", random_seed=1),
}
pd.concat(answers).droplevel(1).round(1)

# %% [markdown]
# The estimate is the same, the interval grows by what is added: differences between schools, then
# the noise of an experiment. In meta-analysis the second is called the *prediction interval*. It is
# the one that a school should be told.
#
# ## The same fit as a meta-analysis
#
# Meta-analysts report heterogeneity by $I^2 = \tau^2 / (\tau^2 + s^2)$: the share of the variance
# of the observed effects that is not their standard errors ($s^2$ is a typical $\sigma_j^2$). hmlm
# keeps it with a REML fit:

# %%
print({k: round(v, 3) for k, v in reml.status.numbers.items() if k in ("Q", "Q_df", "I2", "H2")})
w = 1 / sigma**2
typical = (len(w) - 1) * w.sum() / (w.sum() ** 2 - (w**2).sum())
tau = default.variable("sd_school").ravel()
I2 = tau**2 / (tau**2 + typical)
low, middle, high = np.quantile(I2, [0.025, 0.5, 0.975])
Markdown(
    f"Typical variance {typical:.0f}. "
    f"$I^2$: posterior median {middle:.2f} ({low:.2f} to {high:.2f})."
)

# %% [markdown]
# "$I^2 = 0\%$" is often read as "the studies agree". With eight small studies it says hardly
# anything: the posterior reaches from zero to more than one half.
#
# ## The funnel, and why it is not met here
#
# Eight schools are notorious among samplers. Look at the effect of one school, as a deviation from
# the mean, against $\log \tau$:

# %%
b = fit.variable("b_school")[..., 0, 0].ravel()
fig, ax = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
ax.scatter(b, np.log(tau_draws), s=5, color="#0072B2", alpha=0.25, linewidths=0)
ax.set(xlabel="deviation of school A from the mean", ylabel="log tau", xlim=(-45, 65), ylim=(-4, 4))
ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# Where $\tau$ is near zero all deviations must be near zero too, and the cloud becomes a narrow
# neck. A sampler that walks through the deviations and $\log \tau$ together needs tiny steps in the
# neck and long ones in the bowl: it gets stuck, or misses the neck and so overstates $\tau$. The
# usual cure is to write $\theta_j = \mu + \tau \eta_j$ with standard normal $\eta_j$, the
# non-centred form.
#
# hmlm does not walk there at all. In a Gaussian model the deviations can be integrated out exactly,
# which is what `status` said above. The sampler sees $\mu$ and $\tau$ alone; then each draw of
# them gets one draw of the deviations, which are normal given $\mu$ and $\tau$. The picture
# shows the funnel in full, and yet:

# %%
print({k: fit.status.numbers[k] for k in fit.status.numbers if "diverg" in k})
hmlm.tidy(fit, groups=False)[["component", "term", "ess_bulk", "r_hat"]].round(3)

# %% [markdown]
# ## A binomial sequel: 71 groups of rats
#
# BDA's chapter begins with another example. In each of 71 experiments some of the control rats
# developed a tumour. In the last, the current one, 4 of 14 did. In 14 of the older ones none did:
# is the risk there zero?

# %%
rats = hmlm.load_dataset("tumors")
rats_model = hmlm.Model("p(y, K) ~ 1 + (1 | experiment)", rats, family="binomial")
rats_fit = sample(rats_model)
print(rats_fit.status)
tau_rats = rats_fit.variable("sd_experiment").ravel()
low, high = np.quantile(tau_rats, [0.025, 0.975])
Markdown(f"Standard deviation of the log odds: {tau_rats.mean():.2f} ({low:.2f} to {high:.2f}).")

# %% [markdown]
# With 71 groups $\tau$ is well known, and far from zero. The estimates under partial pooling:

# %%
risk = rats_fit.predict(rats.assign(K=1), kind="mean")
fig, ax = plt.subplots(figsize=(5.6, 4.2), layout="constrained")
raw = rats["y"] / rats["K"]
jitter = np.random.default_rng(1).uniform(-0.004, 0.004, len(raw))
ax.plot([0, 0.4], [0, 0.4], color="#777777", linestyle=(0, (5, 2)), linewidth=1.2)
ax.vlines(raw + jitter, risk["lower"], risk["upper"], color="#0072B2", alpha=0.35, linewidth=0.9)
ax.scatter(raw + jitter, risk["estimate"], s=rats["K"], color="#0072B2", alpha=0.7, linewidths=0)
ax.annotate(
    "the current experiment",
    (raw.iloc[-1], risk["estimate"].iloc[-1]),
    (0.29, 0.01),
    arrowprops={"arrowstyle": "-", "linewidth": 0.6},
    fontsize=9,
)
ax.set(xlabel="observed share y / K", ylabel="estimated risk, 95% interval")
ax.spines[["top", "right"]].set_visible(False)

# %%
picked = [0, 13, 70]  # 0 of 20, another with none, and the current experiment
beside = pd.concat([rats, raw.rename("share"), risk[["estimate", "lower", "upper"]]], axis=1)
beside.iloc[picked].round(3)

# %% [markdown]
# The dashed line is no pooling. The cloud is flatter: high shares come down, low ones go up, small
# experiments (small dots) further than large ones. None of 20 is no proof of no risk. BDA's model
# has a beta distribution of risks where ours has a normal one of log odds. Exercise 4 shows that
# for the current experiment it makes no difference that anyone would notice.
#
# ## Exercises
#
# **1.** Suppose that school A had reported 100 instead of 28. What happens to $\tau$, to A, and to
# the other schools? Explain it with `plot_conditional`.
#
# <details><summary>Solution</summary>
#
# ```python
# wild = schools.assign(y=schools["y"].where(schools["school"] != "A", 100))
# wild_fit = sample(hmlm.Model("se(y, sigma) ~ 1 + (1 | school)", wild))
# print(hmlm.compare(wild_fit, default))
# axes = hmlm.plot_conditional(wild_fit)
# ```
#
# One wild school makes $\tau$ large. Then *nobody* is pooled much: not only A, also C and H get
# estimates nearer to their own. That is a property of the normal distribution of effects, which
# must become wide to hold A. If you believe that A is a case of its own, say so with a
# distribution that has heavy tails, or with a predictor.
#
# </details>
#
# **2.** A prior that was popular and should not be: an inverse-gamma(0.001, 0.001) for $\tau^2$,
# once called "non-informative". What does it do to school A? Use `exact`.
#
# <details><summary>Solution</summary>
#
# ```python
# def inverse_gamma_on_variance(tau):
#     return stats.invgamma(0.001, scale=0.001).pdf(tau**2) * 2 * tau
#
#
# popular, table = exact(inverse_gamma_on_variance)
# print(table.round(1))
# print(quantile(popular, [0.5, 0.95, 0.975]).round(2))
# ```
#
# Its density piles up near zero and decides the matter there: half of the posterior of $\tau$ is
# below 0.6, and all schools get nearly the same estimate (BDA, section 5.7, figure 5.9). A
# prior that looks flat on one scale is not flat on another. Worse, the 0.001 is what keeps the
# posterior from collapsing onto zero, so the answer depends on an arbitrary number.
#
# </details>
#
# **3.** The course costs money, and is worth it where its effect is above 5 points. For each
# school, and for a ninth, what is the probability?
#
# <details><summary>Solution</summary>
#
# ```python
# own = (effects > 5).mean(axis=(0, 1))
# rng = np.random.default_rng(1)
# new = rng.normal(fit.variable("beta").ravel(), tau_draws)
# print(pd.Series([*own, (new > 5).mean()], index=[*schools["school"], "ninth"]).round(2))
# ```
#
# All lie between about one half and four fifths. The estimates of 28 and -3 made it look like two
# different decisions; they are nearly the same decision.
#
# </details>
#
# **4.** BDA's model for the rats lets the *risks* have a beta distribution. In hmlm that is the
# beta-binomial family without groups. Fit it, and compute the posterior mean of the current
# experiment: given the beta distribution with mean $m$ and precision $\phi$ it is
# $(m \phi + y) / (\phi + K)$.
#
# <details><summary>Solution</summary>
#
# ```python
# beta_model = hmlm.Model("p(y, K) ~ 1", rats, family="beta-binomial")
# beta_fit = sample(beta_model)
# print(beta_fit.summary())
# m = 1 / (1 + np.exp(-beta_fit.variable("beta").ravel()))
# phi = beta_fit.variable("phi").ravel()
# print(f"alpha {np.mean(m * phi):.1f}, beta {np.mean((1 - m) * phi):.1f}")
# print(f"current experiment: {np.mean((m * phi + 4) / (phi + 14)):.3f}")
# ```
#
# BDA find $\alpha = 2.4$ and $\beta = 14.3$: a prior worth some 17 rats, of which 2.4 have a
# tumour. With it, 4 of 14 becomes 6.4 of 31. The estimate agrees with that of the logit-normal
# model to within about a hundredth.
#
# </details>
#
# ## References
#
# - Gelman, A. and others (2013). *Bayesian Data Analysis*, third edition. Sections 5.1 to 5.7.
# - Higgins, J. P. T. and Thompson, S. G. (2002). Quantifying heterogeneity in a meta-analysis.
#   *Statistics in Medicine* 21, 1539-1558.
# - Neal, R. M. (2003). Slice sampling. *Annals of Statistics* 31, 705-767. (The funnel.)
# - Rubin, D. B. (1981). Estimation in parallel randomized experiments. *Journal of Educational
#   Statistics* 6, 377-401.
# - Tarone, R. E. (1982). The use of historical control information in testing for a trend in
#   proportions. *Biometrics* 38, 215-220.
