"""Draw every figure of the gallery and write its pages: docs/gallery/*.png, docs/gallery/index.md.

`STARTS` are the fits, as the page shows them; each `Picture` is the one call that draws a figure.
What is shown is what is run.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
FOLDER = ROOT / "docs" / "gallery"

STARTS = """\
import hmlm

alcohol = hmlm.Model("alcuse ~ coa + peer + time + (time | id)", hmlm.load_dataset("alcohol"))
bayes = alcohol.fit(random_seed=1)
reml = alcohol.fit(hmlm.REML())
alone = alcohol.with_pooling("none").fit(hmlm.OLS())
pooled = alcohol.with_pooling("complete").fit(hmlm.OLS())

sleep = hmlm.Model("Reaction ~ Days + (Days | Subject)", hmlm.load_dataset("sleepstudy"))
sleepers = sleep.fit(hmlm.REML())

radon = hmlm.Model("log_radon ~ floor + log_uranium + (1 | county)", hmlm.load_dataset("radon"))
counties = radon.fit(hmlm.REML())

eight = hmlm.Model("se(y, sigma) ~ 1 + (1 | school)", hmlm.load_dataset("eight_schools"))
schools = eight.fit(random_seed=1)

growth = hmlm.Model("math ~ year + (year | school / child)", hmlm.load_dataset("egsingle"))
pupils = growth.fit(hmlm.REML())

births = hmlm.Model("use ~ age + I(age**2) + urban + livch + (urban | district)",
                    hmlm.load_dataset("contraception"), "bernoulli")
women = births.fit(hmlm.Laplace())

disease = hmlm.Model("incidence ~ period + offset(log(size)) + (1 | herd)",
                     hmlm.load_dataset("cbpp"), "poisson")
herds = disease.fit(hmlm.Laplace())

study = hmlm.plan_power(
    "score ~ treated + (1 | school)",
    hmlm.make_study(groups={"school": 20}, per_group=10, predictors={"treated": "binary"}),
    {"Intercept": 0, "treated": 0.3, "sd_school": 0.5, "sigma": 1},
    test="treated", n_simulations=100, vary={"school": [10, 20, 40, 60]}, random_seed=1,
)
calibration = hmlm.calibrate(
    "y ~ 1 + (1 | g)",
    hmlm.make_study(groups={"g": 8}, per_group=5),
    {"Intercept": hmlm.Prior("normal", sigma=1), "sd": hmlm.Prior("half-normal", sigma=1),
     "sigma": hmlm.Prior("half-normal", sigma=1)},
    n_simulations=50, method=hmlm.NUTS(draws=200, tune=200, chains=1, cores=1), random_seed=2,
)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One figure of the gallery.

    Attributes
    ----------
    call : str
        The call that draws it.
    alt : str
        What a reader who does not see the figure should know of it.
    caption : str
        One line under the figure.
    """

    call: str
    alt: str
    caption: str

    @property
    def name(self) -> str:
        """The public function that is called."""
        return self.call.removeprefix("hmlm.").partition("(")[0]


CHAPTERS: dict[str, tuple[Picture, ...]] = {
    "Groups and pooling": (
        Picture(
            call="hmlm.plot_groups(bayes, reml, alone, pooled)",
            caption="Some groups: their data and the curve of every fit.",
            alt="Panels of eight adolescents with their data, the posterior line and its band, "
            "and the lines by REML, without pooling and with complete pooling",
        ),
        Picture(
            call="hmlm.plot_shrinkage(bayes)",
            caption="How far partial pooling moves each group, and where to.",
            alt="Arrows in the plane of intercepts and slopes from the estimates without pooling "
            "towards the middle of the population's ellipses",
        ),
        Picture(
            call="hmlm.plot_sizes(counties)",
            caption="Estimates against group size, without and with pooling.",
            alt="Two panels of counties by the number of houses: without pooling the estimates of "
            "small counties scatter widely, with partial pooling they lie near the average",
        ),
        Picture(
            call="hmlm.plot_conditional(eight)",
            caption="All estimates given the sd between groups, from complete to no pooling.",
            alt="Curves of eight schools that fan out from one common value as the standard "
            "deviation between schools grows, above the density of that standard deviation",
        ),
        Picture(
            call='hmlm.plot_caterpillar(sleepers, column="Days")',
            caption="All groups in order, with intervals.",
            alt="Slopes of eighteen people in order of size, each with its interval",
        ),
        Picture(
            call="hmlm.plot_ranks(schools)",
            caption="How sure the order of groups is.",
            alt="The rank of eight schools, each with an interval that spans nearly all ranks, "
            "and the probability of each to be the best",
        ),
        Picture(
            call='hmlm.plot_group_predictor(counties, "log_uranium")',
            caption="Groups against a predictor of groups.",
            alt="Intercepts of the counties against the uranium in their soil, around a rising "
            "line with its band",
        ),
        Picture(
            call="hmlm.plot_variance(pupils)",
            caption="At which level the variance lies.",
            alt="Bars with the share of the variance of predictors, schools, children in schools "
            "and the residual",
        ),
        Picture(
            call='hmlm.plot_profile(reml, bayes, ["time", "sd_id[Intercept]"])',
            caption="The profile likelihood beside the posterior of the same parameter.",
            alt="The posterior density of a slope and of a standard deviation, each under the "
            "profile likelihood, with both intervals",
        ),
    ),
    "Predictions": (
        Picture(
            call='hmlm.plot_new_group(bayes, levels=["3"])',
            caption="What is known of a group that was never seen, beside one that was.",
            alt="Lines of alcohol use over time with bands: that of a new adolescent is wider than "
            "that of a known one, and that of the population is the narrowest",
        ),
        Picture(
            call='hmlm.plot_predictions(sleepers, "Days", by="Subject", levels=3, data=True)',
            caption="Predictions along a predictor, for groups and for the population.",
            alt="Lines of reaction time over days for three people and the population, with bands",
        ),
        Picture(
            call='hmlm.plot_comparisons(reml, {"coa": (0, 1), "peer": "sd"})',
            caption="Differences of average predictions.",
            alt="Two differences of average predictions with their intervals, both above zero",
        ),
        Picture(
            call='hmlm.plot_slopes(sleepers, "Days", by="Subject")',
            caption="Average slopes, here by group.",
            alt="Average slopes of eighteen people with their intervals",
        ),
    ),
    "Checks": (
        Picture(
            call="hmlm.plot_ppc(bayes, random_seed=1)",
            caption="The outcome over replicates of it. Here the many zeros do not fit.",
            alt="The distribution of alcohol use in the data, with a peak at zero, over those of "
            "many replicates, which have none",
        ),
        Picture(
            call="hmlm.plot_ppc_groups(sleepers, random_seed=1)",
            caption="The mean of every group beside its replicates.",
            alt="Means of eighteen people, each within the interval of replicates",
        ),
        Picture(
            call="hmlm.plot_ppc_statistics(bayes, random_seed=1)",
            caption="Statistics of the data among those of replicates.",
            alt="Six histograms of statistics of replicates, with a line at that of the data: two "
            "lines, in orange, lie outside",
        ),
        Picture(
            call="hmlm.plot_rootogram(herds, random_seed=1)",
            caption="Counts, hanging from what the model expects.",
            alt="Bars of the root of the number of rows by count, hanging from the expected curve",
        ),
        Picture(
            call="hmlm.plot_calibration(women, random_seed=1)",
            caption="Whether probabilities mean what they say.",
            alt="The share of women who use contraception against the probability of the model, "
            "close to the diagonal and inside the band of replicates",
        ),
        Picture(
            call="hmlm.plot_residuals(sleepers)",
            caption="Residuals against fitted values, and their quantiles.",
            alt="Residuals against fitted values, and quantiles of residuals against normal ones",
        ),
        Picture(
            call="hmlm.plot_funnel(schools)",
            caption="The sd between groups against effects: where a sampler would get stuck.",
            alt="Draws of the effects of schools against the log of the sd between schools, which "
            "narrow to a funnel as the sd goes to zero",
        ),
    ),
    "Priors": (
        Picture(
            call="hmlm.plot_priors(bayes)",
            caption="Each prior, with the posterior over it.",
            alt="Panels with the prior density of every parameter and the narrower posterior",
        ),
        Picture(
            call="hmlm.plot_prior_predictive(sleep, random_seed=1)",
            caption="What the priors expect before the data.",
            alt="Distributions of reaction times drawn from the prior, wider than the data",
        ),
    ),
    "Planning and calibration": (
        Picture(
            call="hmlm.plot_power(study)",
            caption="Power against the size of the study.",
            alt="Power rising with the number of schools, with intervals and a line at 0.8",
        ),
        Picture(
            call="hmlm.plot_calibration_ranks(calibration)",
            caption="Whether the truth ranks evenly among the draws.",
            alt="Deviations of the ranks of true values from the uniform distribution, inside "
            "their band, a panel for each parameter",
        ),
    ),
}


def run_starts(names: dict[str, Any], say: bool) -> None:
    """Run the code of the fits, which print nothing of their own here."""
    began = time.perf_counter()
    exec(STARTS, names)
    if say:
        print(f"fits: {time.perf_counter() - began:.1f} s")


def draw(picture: Picture, names: dict[str, Any]) -> Any:
    """Return the figure that a call draws."""
    import numpy as np

    axes = eval(picture.call, names)
    return np.ravel(axes)[0].figure


def page() -> str:
    """Return the text of the gallery."""
    lines = ["# Gallery", ""]
    lines += ["Every figure is one call on a fit or a model, and returns Matplotlib axes."]
    lines += ["A name leads to its page in the reference.", ""]
    lines += [":::{dropdown} The fits behind the figures", "```python", STARTS.rstrip(), "```"]
    lines += [":::", ""]
    for chapter, pictures in CHAPTERS.items():
        lines += [f"## {chapter}", "", "::::{grid} 1 1 2 2", ":gutter: 3", ""]
        for picture in pictures:
            lines += [":::{grid-item-card} {py:func}`~hmlm." + picture.name + "`", picture.caption]
            lines += ["```python", picture.call, "```"]
            lines += ["```{image} " + picture.name + ".png", f":alt: {picture.alt}"]
            lines += [":width: 100%", ":class: picture", "```", ":::", ""]
        lines += ["::::", ""]
    return "\n".join(lines)


def main() -> int:
    """Draw the figures and write the page; with --times say how long each takes."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    say = "--times" in sys.argv[1:]
    names: dict[str, Any] = {}
    FOLDER.mkdir(parents=True, exist_ok=True)
    run_starts(names, say)
    for picture in (p for pictures in CHAPTERS.values() for p in pictures):
        began = time.perf_counter()
        figure = draw(picture, names)
        figure.savefig(FOLDER / f"{picture.name}.png", dpi=100)
        plt.close("all")
        if say:
            print(f"{picture.name}: {time.perf_counter() - began:.1f} s")
    (FOLDER / "index.md").write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
