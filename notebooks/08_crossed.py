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
# # Crossed factors: every sample on every plate
#
# **The question.** Six samples of penicillin are tested for their strength on 24 plates. A measured
# value says something about the sample and something about the plate. Which is which, and how sure
# can we be of either?
#
# **The data.** Davies and Goldsmith (1972), from quality control; with Bates (2010) the standard
# example of crossed random effects in lme4. Beside them the pastes of the same book, which are
# nested.
#
# **What you will learn.** What crossed and nested mean, and how to see it in the data; how to fit
# two grouping factors that go across each other; what the estimates of samples have in common, so
# that a *difference* of two is known better than either; how to predict a known sample on a new
# plate; and two ways to ask whether a grouping factor is needed.

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


def sample(model):
    return model.fit(nuts, random_seed=1, progressbar=False)


penicillin = hmlm.load_dataset("penicillin")
penicillin.head(3)

# %% [markdown]
# A plate is covered with bacteria, and a drop of each sample is put on it. Where the penicillin is
# strong enough no bacteria grow: `diameter` is the width of the clear circle in millimetres.

# %%
order = penicillin.groupby("plate", observed=True)["diameter"].mean().sort_values().index
colours = [palette.BLUE, palette.ORANGE, palette.GREEN, palette.VERMILION, palette.PURPLE]
figure, ax = plt.subplots(figsize=(9, 3.8), layout="constrained")
for colour, (name, rows) in zip(
    [*colours, palette.INK], penicillin.groupby("sample", observed=True), strict=True
):
    line = rows.set_index("plate")["diameter"].reindex(order)
    ax.plot(range(len(order)), line, "o-", color=colour, markersize=4, linewidth=1, label=name)
ax.set(xlabel="plate, from the lowest to the highest mean", ylabel="diameter (mm)")
ax.set_xticks(range(len(order)), order)
ax.spines[["top", "right"]].set_visible(False)
legend = figure.legend(loc="outside right center", title="sample", frameon=False)

# %% [markdown]
# Each line is a sample. Two things are plain: samples differ (the lines lie one above the other),
# and so do plates (all lines rise together from left to right).
#
# ## Crossed or nested?
#
# Cross-tabulate the factors and look at the pattern.
#
# - **Crossed**: levels of one factor occur with many levels of the other. Each plate has all six
#   samples, and sample `A` is the same sample on all plates.
# - **Nested**: each level of the lower factor occurs in one level of the upper. Here it is the
#   pastes: ten batches, three casks from each, and every cask tested twice.

# %%
pastes = hmlm.load_dataset("pastes")
tables = {
    "penicillin: crossed": pd.crosstab(penicillin["sample"], penicillin["plate"]),
    "pastes: nested": pd.crosstab(pastes["batch"], pastes["sample"]),
    "pastes: nested, but labels repeat": pd.crosstab(pastes["batch"], pastes["cask"]),
}
figure, axes = plt.subplots(1, 3, figsize=(9, 2.7), layout="constrained", width_ratios=[24, 30, 5])
for ax, (title, table) in zip(axes, tables.items(), strict=True):
    ax.pcolormesh(table.to_numpy() > 0, cmap="Blues", vmin=0, vmax=1.4, edgecolor="white")
    ax.set(xlabel=table.columns.name, ylabel=table.index.name)
    ax.set_title(title, fontsize=9, loc="right" if len(table.columns) < 5 else "left")
    ax.set_xticks([]), ax.set_yticks(np.arange(len(table)) + 0.5, table.index, fontsize=7)
    ax.invert_yaxis()

# %% [markdown]
# A full table on the left: crossed. Steps in the middle: nested (`sample` there is the cask with
# its batch, `A:a`, so that each name occurs once). And on the right a trap. The casks of each batch
# are called `a`, `b` and `c`. By their labels they look crossed, though cask `a` of batch `A` has
# nothing to do with cask `a` of batch `B`. No program can know this; the formula has to say it.

# %%
terms = {
    "(1 | batch/cask)": "cask within batch",
    "(1 | batch) + (1 | sample)": "labels that occur once",
    "(1 | batch) + (1 | cask)": "labels that repeat",
}
found = {}
for term, what in terms.items():
    fit = hmlm.Model(f"strength ~ 1 + {term}", pastes).fit(hmlm.REML())
    table = hmlm.tidy(fit, groups=False).query("component in ('sd', 'residual')")
    lower = table["group"].replace({"batch:cask": "cask", "sample": "cask", "": "residual"})
    found[term] = {"": what, "log-likelihood": fit.log_likelihood} | dict(
        zip("sd of " + lower, table["estimate"], strict=True)
    )
pd.DataFrame(found).T

# %% [markdown]
# The first two are one model, written in two ways. The third takes all casks `a` for one cask:
# there seem to be three casks, which hardly differ, and what real casks differ by is put down to
# error. Nothing fails and nothing warns. That is why one looks at the table first, and gives labels
# that occur once whenever one can.
#
# ## The model
#
# Measurement $i$ is of sample $s[i]$ on plate $p[i]$. Both have an effect, and neither is inside
# the other:
#
# $$\begin{aligned}
# \text{diameter}_i &\sim \operatorname{Normal}(\beta_0 + b_{p[i]} + c_{s[i]},\; \sigma^2) \\
# b_p &\sim \operatorname{Normal}(0, \tau_\text{plate}^2), \quad p = 1, \dots, 24 \\
# c_s &\sim \operatorname{Normal}(0, \tau_\text{sample}^2), \quad s = 1, \dots, 6.
# \end{aligned}$$

# %%
model = hmlm.Model("diameter ~ 1 + (1 | plate) + (1 | sample)", penicillin)
reml = model.fit(hmlm.REML())
bayes = sample(model)
print(bayes.status)
hmlm.compare(bayes, reml, groups=False)

# %% [markdown]
# REML has the values of lme4: 0.85 for plates, 1.93 for samples, 0.55 for what is left. The
# posterior agrees on the plates and on the residual. Of the samples its mean is larger. Look at the
# two intervals:

# %%
intervals = {"REML, profile": reml.confint("profile"), "NUTS": hmlm.tidy(bayes, groups=False)}
columns = ["estimate", "lower", "upper"]
pd.concat(
    {
        name: table.query("component == 'sd'").set_index("group")[columns]
        for name, table in intervals.items()
    },
    axis=1,
).round(2)

# %%
figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
for colour, group in ((palette.BLUE, "plate"), (palette.VERMILION, "sample")):
    ax.hist(
        bayes.variable(f"sd_{group}").ravel(),
        np.arange(0, 6.01, 0.1),
        density=True,
        color=colour,
        alpha=0.5,
        label=f"sd of {group}s: posterior",
    )
    modes = hmlm.tidy(reml, groups=False).query("component == 'sd' and group == @group")
    ax.axvline(modes["estimate"].iloc[0], color=colour, label=f"sd of {group}s: REML")
ax.set(xlabel="standard deviation (mm)", yticks=[])
ax.spines[["top", "right", "left"]].set_visible(False)
legend = ax.legend(frameon=False, fontsize=8)

# %% [markdown]
# There are 144 measurements, but only six samples, and it is six things from which the standard
# deviation *of samples* has to be learnt. Its posterior is wide and has a long right tail: six
# samples may well have come from a population that varies more than they do. REML is near the peak,
# the posterior mean to the right of it. (With so few levels the prior matters too: exercise 4.)
#
# ## Where is the variance?

# %%
ax = hmlm.plot_variance(bayes)

# %% [markdown]
# Most of it lies between samples, which is what the test is for: it tells strong samples from weak.
# What would come of one measurement more, of the same sample on the *same* plate, differs little.
#
# ## The effects, and what they share
#
# lme4 calls the estimates of $b$ and $c$ *conditional modes*: their most probable values, given the
# data and the estimated variances. Beside them the posterior, for the samples:

# %%
figures = ["estimate", "std_error"]
effects = {
    (component, name): hmlm.tidy(fit)
    .query("component == @component and group == 'sample'")
    .set_index("level")[figures]
    for component in ("group", "total")
    for name, fit in {"REML": reml, "NUTS": bayes}.items()
}
pd.concat(effects, axis=1).astype(float).round(2)

# %% [markdown]
# The estimates agree. Of the totals (`total`: population mean and sample together) the errors agree
# too. But of the deviations (`group`) the posterior's error is four times as large. Who is right?
# Both, of different things:
#
# - The error of a conditional mode takes the population mean $\beta_0$ as given.
# - The posterior's does not. A deviation is *from the mean of all samples that there could be*, and
#   from six samples that mean is not known to better than 0.9 mm. Were it lower by one, all six
#   deviations would be higher by one.
#
# So the six deviations share an error. It shows as a correlation, and it drops out of differences:

# %%
names = list(model.design.blocks[1].levels)
deviations = pd.DataFrame(bayes.variable("b_sample")[..., 0].reshape(-1, 6), columns=names)
deviations.corr().round(2)

# %%
difference = deviations["A"] - deviations["C"]
pd.DataFrame(
    {
        "deviation of A": deviations["A"],
        "deviation of C": deviations["C"],
        "A less C": difference,
    }
).agg(["mean", "std"]).T.round(2)

# %% [markdown]
# Neither deviation is known to better than 0.9 mm, but their difference is, to 0.16. *Samples can
# be compared far better than they can be placed.* Anything that is asked about several groups
# should therefore be asked of their joint draws, not of two intervals laid side by side.
#
# The same in figures. For samples the totals have small errors (24 plates each):

# %%
ax = hmlm.plot_caterpillar(bayes, reml, group="sample", size=(7, 2.8))

# %%
ax = hmlm.plot_caterpillar(bayes, group="plate", size=(7, 5))

# %% [markdown]
# For plates they look hopeless: all intervals overlap. Yet the plates do differ. A total here is
# what a plate would show with a sample from the middle of the population, and where that middle is,
# is not known. This uncertainty is common to all plates and moves them together. The *ranks* of
# plates do not depend on it:

# %%
axes = hmlm.plot_ranks(bayes, group="plate", size=(9, 5))

# %% [markdown]
# Plate `m` is very probably the highest, and the ends are well told apart, which the intervals did
# not show. In the middle a rank may be five places off, as ranks are.
#
# How much of its own mean does a level keep? With $n$ measurements of a level, the pooling factor
# is about $\sigma^2 / (\sigma^2 + n \tau^2)$.

# %%
pooling = hmlm.measure_pooling(bayes).query("component == 'group'")
pooling.groupby("group")[["rows", "pooling", "weight"]].mean().astype(float).round(3)

# %% [markdown]
# A plate has six measurements and gives a tenth of its deviation to the population; a sample has
# 24, and gives almost nothing. Few levels with many rows each are hardly pooled: there the model's
# gain is not better estimates of samples, but a statement about samples that are not in the data.
#
# ## A new plate, a known sample
#
# In tomorrow's test there is a new plate. What do we expect of sample A on it? `groups` says of
# each factor what becomes of it: those not named are known.

# %%
today = pd.DataFrame({"plate": ["a"], "sample": ["A"]})
tomorrow = pd.DataFrame({"plate": ["tomorrow's"], "sample": ["A"]})
unknown = pd.DataFrame({"plate": ["tomorrow's"], "sample": ["a new one"]})
cases = {
    "A on plate a": bayes.predict(today),
    "A on a new plate": bayes.predict(tomorrow, groups={"plate": "new"}, random_seed=1),
    "A on the average plate": bayes.predict(tomorrow, groups={"plate": "population"}),
    "a new sample on plate a": bayes.predict(
        today.assign(sample="a new one"), groups={"sample": "new"}, random_seed=1
    ),
    "a new sample on a new plate": bayes.predict(unknown, groups="new", random_seed=1),
    "one measurement of A on a new plate": bayes.predict(
        tomorrow, "response", groups={"plate": "new"}, random_seed=1
    ),
}
pd.concat(cases).droplevel(1).round(2)

# %% [markdown]
# What is known of a sample carries over to a new plate; that plate's own deviation does not, and
# its
# 0.9 mm are most of the uncertainty. The average plate, on the other hand, is known well. Of a new
# sample little can be said: samples vary, and how much is itself uncertain.
#
# Two samples on the *same* new plate share its effect, and a prediction for both at once says so:

# %%
pair = pd.DataFrame({"plate": ["tomorrow's"] * 2, "sample": ["A", "C"]})
apart = hmlm.compare_predictions(
    bayes, {"sample": ("C", "A")}, new_data=pair, groups={"plate": "new"}, random_seed=1
)
apart.round(2)

# %% [markdown]
# ## Is the plate needed?
#
# Suppose that nobody had written down the plates.

# %%
unplated = hmlm.Model("diameter ~ 1 + (1 | sample)", penicillin)
without = sample(unplated)
hmlm.compare(bayes, without, groups=False)

# %% [markdown]
# The plates' variance has gone to `sigma`. The samples' effects are what they were, but known less
# well, and so are their differences:

# %%
effects = without.variable("b_sample")[..., 0]
blind = effects[..., names.index("A")] - effects[..., names.index("C")]
Markdown(
    f"A less C: {difference.mean():.2f} with a standard deviation of {difference.std():.2f} when "
    f"plates are known, and {blind.mean():.2f} with {blind.std():.2f} when they are not."
)

# %% [markdown]
# That is what the design is for. All samples are on each plate, so that they can be compared *on
# the same plate*, where its effect cancels: a plate is a block. Leave it out of the model and the
# advantage is thrown away. (With the school, the state and the county of other notebooks it was the
# other way round: leaving the group out made false certainty. There the predictor was constant in
# the group, here it varies within.)
#
# Two questions can be asked of the two models. The classical one: could $\tau_\text{plate}$ be
# zero? A variance of zero is at the edge of what is possible, so the statistic follows a mixture of
# chi-squared distributions.

# %%
test = hmlm.likelihood_ratio_test(unplated.fit(hmlm.REML()), reml)
test.assign(p_value=test["p_value"].map("{:.0e}".format))[
    ["df", "statistic", "p_value", "method"]
].round(1)

# %% [markdown]
# And the predictive one: which model foretells a measurement better that it has not seen?
# `rank_fits` leaves out one after the other. Beside it the information criteria, of fits by maximum
# likelihood.

# %%
ranked = hmlm.rank_fits(bayes, without, groups=False)
ranked[["formula", "elpd_loo", "se_loo", "difference", "se_difference", "p_loo"]].round(1)

# %%
criteria = hmlm.rank_fits(model.fit(hmlm.ML()), unplated.fit(hmlm.ML()))
criteria[["formula", "log_likelihood", "aic", "bic", "caic"]].round(1)

# %% [markdown]
# Here all agree, by a wide margin. They need not, since they ask different things. The test and the
# AIC ask about *new* plates, whose effects are unknown; `elpd_loo` and the conditional AIC about a
# new measurement on a plate *that we know*. `p_loo` counts what the model has learnt: about 24
# plates and six samples, less what pooling saves.
#
# ## What to say

# %%
share = hmlm.split_variance(bayes).set_index("group")
text = "{share:.0%} (95% interval {share_lower:.0%} to {share_upper:.0%})"
of_sample, of_plate = (text.format(**share.loc[name].to_dict()) for name in ("sample", "plate"))
low, high = np.quantile(difference, [0.025, 0.975])
residual, between = (bayes.variable(name) ** 2 for name in ("sigma", "sd_plate"))
typical = {
    "one": np.sqrt(2 * residual.mean()),
    "two": np.sqrt(2 * (residual.mean() + between.mean())),
}
Markdown(
    f"""
- **Samples** hold {of_sample} of the variance, **plates** {of_plate}. How much samples vary is not
  known well: there are six.
- **A less C** is {difference.mean():.2f} mm (95% interval {low:.2f} to {high:.2f}). A is the
  stronger with a probability of {np.mean(difference > 0):.2f}.
- **Plates matter**: two measurements of a sample on different plates differ by
  {typical["two"]:.1f} mm (root mean square), two on one plate would by {typical["one"]:.1f} mm.
"""
)

# %% [markdown]
# ## Exercises
#
# **1.** Plates break. Delete a third of the measurements at random. Is the design still crossed?
# How much is lost?
#
# <details><summary>Solution</summary>
#
# ```python
# kept = penicillin.sample(frac=2 / 3, random_state=1)
# print(pd.crosstab(kept["sample"], kept["plate"]))
# broken = sample(hmlm.Model("diameter ~ 1 + (1 | plate) + (1 | sample)", kept))
# print(broken.summary())
# left = broken.variable("b_sample")[..., 0]
# print("A less C:", (left[..., 0] - left[..., 2]).std().round(2))
# ```
#
# It is: crossed does not mean complete. Samples and plates still meet in many cells, and the model
# compares them through the plates that they share. The estimates hardly move, and the difference of
# A and C is a little less certain. Classical analysis of variance needs a complete table; this
# model does not.
#
# </details>
#
# **2.** Make the samples coefficients instead of random effects. What becomes of their estimates
# and of their errors, and what can no longer be done?
#
# <details><summary>Solution</summary>
#
# ```python
# fixed = hmlm.Model("diameter ~ 0 + sample + (1 | plate)", penicillin).fit(hmlm.REML())
# totals = hmlm.tidy(reml).query("component == 'total' and group == 'sample'")
# own = hmlm.tidy(fixed, groups=False).query("component == 'population'")
# print(pd.DataFrame({
#     "fixed": own["estimate"].to_numpy(), "error": own["std_error"].to_numpy(),
#     "random": totals["estimate"].to_numpy(), "its error": totals["std_error"].to_numpy(),
# }, index=names).astype(float).round(3))
# ```
#
# They are the same to a hundredth or two: with 24 plates a sample is hardly pooled. But there is no
# population of samples any more, so nothing can be said about a new one. If these six are all that
# matter, coefficients will do; if they stand for what the factory makes, they will not.
#
# </details>
#
# **3.** The check of the fit has a finding. Take it up. Is it a reason to change the model?
#
# <details><summary>Solution</summary>
#
# ```python
# checks = bayes.check(random_seed=1)
# print(checks)
# print(penicillin.head(7))
# ```
#
# Residuals that follow each other on a plate are somewhat alike. The rows of a plate are in the
# order of the samples' names, which is not known to be one of time or place. Of more than ten
# checks one is likely to be noteworthy by chance. If the drops lie round the plate in this order,
# neighbours may well be alike; ask the laboratory. The model should not change on this alone.
#
# </details>
#
# **4.** Someone knows penicillin well and expects samples to differ by 1 mm or so. Use a prior
# `hmlm.Prior("half-normal", sigma=1)` for the sd of samples. What changes, and what does not?
#
# <details><summary>Solution</summary>
#
# ```python
# informed = sample(model.with_priors(sd_sample=hmlm.Prior("half-normal", sigma=1)))
# print(hmlm.compare(informed, bayes, groups=False))
# b = informed.variable("b_sample")[..., 0]
# a_less_c = b[..., 0] - b[..., 2]
# print("A less C:", a_less_c.mean().round(2), a_less_c.std().round(2))
# ```
#
# The sd of samples is smaller and surer, and with it the error of the intercept: six levels leave
# room for a prior. The plates, `sigma` and the difference of two samples stay as they are, because
# the data decide these.
#
# </details>
#
# ## References
#
# - Baayen, R. H., Davidson, D. J. and Bates, D. M. (2008). Mixed-effects modeling with crossed
#   random effects for subjects and items. *Journal of Memory and Language* 59, 390-412.
# - Bates, D. M. (2010). *lme4: Mixed-effects Modeling with R*. Chapter 2.
# - Davies, O. L. and Goldsmith, P. L. (1972). *Statistical Methods in Research and Production*.
#   Oliver and Boyd.
# - Self, S. G. and Liang, K.-Y. (1987). Asymptotic properties of maximum likelihood estimators and
#   likelihood ratio tests under nonstandard conditions. *Journal of the American Statistical
#   Association* 82, 605-610.
