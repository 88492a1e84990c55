"""The first model of the course, from the table to the figures: what ``hmlm demo`` shows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FORMULA = "alcuse ~ coa + peer + time + (time | id)"
GROUP_ROWS = 8


def run_demo(
    output: Path, draws: int = 1000, seed: int = 1, console: Any = None, progressbar: bool = True
) -> list[Path]:
    """Fit the alcohol study in four ways, print them side by side and save two figures.

    Parameters
    ----------
    output : Path
        Folder of the figures; made if it is not there.
    draws : int
        Draws of each of four chains, after as many to tune the sampler.
    seed : int
        Seed of the sampler.
    console : rich.console.Console, optional
        Where to print; the terminal by default.
    progressbar : bool
        Whether to show a progress bar while sampling.

    Returns
    -------
    list of Path
        The figures.
    """
    import matplotlib as mpl
    from rich.console import Console

    from hmlm.datasets import load_dataset
    from hmlm.fitting.maximum_likelihood import REML
    from hmlm.fitting.nuts import NUTS
    from hmlm.fitting.ols import OLS
    from hmlm.model import Model

    mpl.use("Agg")
    # Where the output is no terminal, as wide as the table of four fits needs.
    console = console or Console(width=None if sys.stdout.isatty() else 132)
    output.mkdir(parents=True, exist_ok=True)

    heading(console, "The model")
    alcohol = load_dataset("alcohol")
    model = Model(FORMULA, alcohol)
    write(console, str(model))

    heading(console, "Four fits")
    write(console, f"NUTS samples the posterior: 4 chains of {draws:,} draws. REML maximises the")
    write(console, "restricted likelihood. OLS ignores that rows belong to adolescents (complete")
    write(console, "pooling), or fits each adolescent alone (no pooling).\n")
    reml = model.fit(REML())
    pooled = model.with_pooling("complete").fit(OLS())
    alone = model.with_pooling("none").fit(OLS())
    bayes = model.fit(
        NUTS(draws=draws, tune=draws, chains=4), random_seed=seed, progressbar=progressbar
    )
    console.print()  # the progress bar leaves the cursor in its last line
    write(console, f"{bayes.label}: {bayes.status}")
    write(console, f"{reml.label}: {reml.status}")

    heading(console, "Side by side")
    print_comparison(console, [bayes, reml, pooled, alone])

    heading(console, "Figures")
    paths = save_figures(output, bayes, reml, pooled, alone)
    for path in paths:
        write(console, str(path))
    return paths


def save_figures(output: Path, bayes: Any, reml: Any, pooled: Any, alone: Any) -> list[Path]:
    """Draw the two figures and save them as PNG; return their paths."""
    import matplotlib.pyplot as plt

    from hmlm.plots.groups import plot_groups
    from hmlm.plots.shrinkage import plot_shrinkage

    figures = {
        "groups.png": plot_groups(bayes, reml, alone, pooled)[0].figure,
        "shrinkage.png": plot_shrinkage(bayes, alone, pooled).figure,
    }
    paths = []
    for name, figure in figures.items():
        path = output / name
        figure.savefig(path, dpi=150)
        plt.close(figure)
        paths.append(path)
    return paths


def heading(console: Any, text: str) -> None:
    """Print the heading of a section."""
    console.print()
    console.rule(f"[bold]{text}", align="left", style="dim")
    console.print()


def write(console: Any, text: str) -> None:
    """Print text as it stands: no markup, no colours of its own, no breaks."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_comparison(console: Any, fits: Sequence[Any]) -> None:
    """Print fits side by side; in more than one table where the terminal is too narrow for it."""
    from hmlm.comparison import compare

    table = compare(*fits).table(group_rows=GROUP_ROWS)
    shown = table.__rich__()
    width = console.measure(shown, options=console.options.update(width=10_000)).maximum
    if width > console.width and len(fits) > 1:
        print_comparison(console, fits[:1])
        console.print()
        print_comparison(console, fits[1:])
        return
    if table.title:
        write(console, f"{table.title}\n")
    console.print(shown, width=max(width, console.width), crop=False)
    for note in table.notes:
        write(console, note)
