"""A fit as one page to hand out: model, data, estimates, figures, checks and how it was made."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from hmlm.checks import FEWEST_DRAWS, Checks, check_fit
from hmlm.errors import HmlmError, counted
from hmlm.fitting.settings import check_seed
from hmlm.replicates import check_draws
from hmlm.report_figures import figures_section, groups_section
from hmlm.report_parts import (
    check_place,
    escape,
    page_html,
    paragraphs,
    put_text,
)
from hmlm.report_sections import (
    checks_section,
    data_section,
    estimates_section,
    family_sentence,
    model_section,
    priors_section,
    session_section,
    short_verdict,
    status_section,
    variance_section,
)
from hmlm.report_subject import UNFIT, Subject, fit_companions, read_fits
from hmlm.version import __version__


def write_report(
    fits_or_fit: Any,
    path: str | PathLike[str],
    random_seed: int | None = None,
    draws: int = 500,
) -> Path:
    """Write a fit as one HTML file: no script, no network, every figure within it.

    The page has the model in equations, the data, the data by group under each fit, the estimates
    beside those of classical fits (which are made here), figures of shrinkage and predictive
    checks, the verdicts of the checks, shares of variance, priors, the status of every fit, and
    seeds and versions. Where a part does not apply to the model, a sentence says why.

    Parameters
    ----------
    fits_or_fit : BayesFit, ClassicalFit or a sequence of them
        The fit that the report is about; further ones stand beside it in the table of estimates.
    path : str or path
        Where to write: a file that ends in ``.html``. One that is there is replaced.
    random_seed : int, optional
        Seed of the replicates; drawn anew, and written into the report, when None.
    draws : int
        Number of replicates, 100 or more.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    HmlmError
        If there is no fit, if the fits are of different outcomes or rows, or if the file cannot be
        written there.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> from hmlm.report import write_report
    >>> matplotlib.use("Agg")
    >>> model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    >>> write_report(model.fit(hmlm.REML()), "yield.html")  # doctest: +SKIP
    PosixPath('yield.html')
    """
    place = check_place(path)
    fits = read_fits(fits_or_fit)
    check_draws(draws)
    if draws < FEWEST_DRAWS:
        raise HmlmError(
            f"{counted(draws, 'replicate')} cannot show a tail: draw {FEWEST_DRAWS} or more."
        )
    seed = check_seed(random_seed)
    companions, absent = fit_companions(fits[0].design)
    subject = Subject(fits=fits, companions=companions, absent=absent, seed=seed, draws=int(draws))
    put_text(place, _write_page(subject))
    return place


def _write_page(subject: Subject) -> str:
    design = subject.design
    try:
        checks: Checks | str = check_fit(subject.fit, subject.draws, subject.seed)
    except UNFIT as error:
        checks = f"The fit was not checked: {error}"
    outcome, kind = design.spec.outcome, "multilevel model" if design.blocks else "model"
    head = [
        f"<h1>A {kind} of <code>{escape(outcome)}</code></h1>",
        f"<p><code>{escape(design.spec.formula)}</code></p>",
        paragraphs([family_sentence(design), *short_verdict(subject.fit, checks)]),
    ]
    sections = [
        ("Model", model_section(design)),
        ("Data", data_section(design)),
        ("Data by group", groups_section(subject)),
        ("Estimates", estimates_section(subject)),
        ("Figures", figures_section(subject)),
        ("Checks", checks_section(checks)),
        ("Shares of variance", variance_section(subject.fit)),
        ("Priors", priors_section(subject.fit)),
        ("Status of the fits", status_section(subject)),
        ("How this was made", session_section(subject)),
    ]
    return page_html(
        f"{outcome}: {design.spec.formula}", "\n".join(head), sections, f"hmlm {__version__}"
    )
