"""Sampling that was interrupted: what was drawn is kept, and the fit says so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hmlm.design import Design
from hmlm.status import Status

BEGINNING = "Sampling was interrupted"
FEWEST = 2  # draws after tuning that a chain must have to be of use


class SamplingInterrupted(KeyboardInterrupt):
    """Sampling was interrupted, and there is a fit of what had been drawn.

    Loops over many fits let it go on, as any interrupt; `Model.fit` and `BayesFit.extend` catch it
    and return the fit.

    Attributes
    ----------
    fit : BayesFit
        The fit of the draws that there were.
    """

    def __init__(self, message: str, fit: Any) -> None:
        super().__init__(message)
        self.fit = fit


@dataclass(frozen=True, kw_only=True, slots=True)
class Interruption:
    """How far the chains were when sampling was interrupted.

    Attributes
    ----------
    kept : tuple of int
        Chains that are kept.
    n : int
        Draws of each of them that are kept: as many as the shortest has.
    draws : int
        Draws that were asked for.
    chains : int
        Chains that were asked for.
    """

    kept: tuple[int, ...]
    n: int
    draws: int
    chains: int

    @property
    def note(self) -> str:
        """What happened, in a sentence."""
        of = "a chain"
        if len(self.kept) < self.chains:
            of = f"in {len(self.kept)} of {self.chains} chains, and the others are left out"
        return f"{BEGINNING} after {self.n:,} of {self.draws:,} draws {of}."

    @property
    def problem(self) -> str:
        """What happened and what to do, in a sentence."""
        rest = max(self.draws - self.n, 1)
        why = "; they had not come half as far" if len(self.kept) < self.chains else ""
        return f"{self.note[:-1]}{why}: draw more with fit.extend(draws={rest}), or fit again."

    def mark(self, status: Status) -> Status:
        """Put the interruption first among the problems of a status.

        The diagnostics decide whether the draws converged, unless chains had to be left out.
        """
        whole = len(self.kept) == self.chains
        return replace(
            status,
            converged=status.converged and whole,
            problems=(self.problem, *status.problems),
        )


def interruption_notes(status: Status) -> list[str]:
    """Return, as notes for a fit with more draws, what the status says of interruptions."""
    told = [p for p in status.problems if p.startswith(BEGINNING)]
    return [f"{p.partition(':')[0]}." for p in told]


def find_interruption(lengths: np.ndarray, draws: int) -> Interruption | None:
    """Say which draws are of use, given how many each chain has.

    Chains run side by side only as far as there are processors, so that some may hardly have begun
    when others are complete. Those that have not come half as far as the longest are left out, as
    long as two remain; the others are cut to one length.

    Parameters
    ----------
    lengths : ndarray of int, shape (chains,)
        Draws after tuning in each chain.
    draws : int
        Draws that were asked for.

    Returns
    -------
    Interruption or None
        None where every chain is complete.

    Raises
    ------
    KeyboardInterrupt
        If there are not two draws in any chain.

    Examples
    --------
    >>> import numpy as np
    >>> find_interruption(np.array([900, 700, 12, 0]), 1000).kept
    (0, 1)
    """
    lengths = np.asarray(lengths)
    if (lengths >= draws).all():
        return None
    order = np.argsort(-lengths, kind="stable")
    usable = int((lengths >= FEWEST).sum())
    if not usable:
        raise KeyboardInterrupt(
            "sampling was interrupted while it was tuned, before there were two draws in a chain: "
            "there is nothing to return. Fit again; a smaller tune comes to draws sooner."
        )
    far = int((lengths >= max(FEWEST, lengths.max() / 2)).sum())
    kept = np.sort(order[: max(far, min(2, usable))])
    return Interruption(
        kept=tuple(int(k) for k in kept),
        n=min(int(lengths[kept].min()), draws),
        draws=draws,
        chains=len(lengths),
    )


def run_method(method: Any, design: Design, random_seed: int | None, progressbar: bool) -> Any:
    """Fit a design for the user, to whom an interrupt returns what was drawn.

    Parameters
    ----------
    method : object
        The method.
    design : Design
        The model.
    random_seed : int or None
        Seed.
    progressbar : bool
        Whether to show a progress bar, and to print that sampling was interrupted.

    Returns
    -------
    BayesFit or ClassicalFit
        The fit; where it was interrupted its status says so first.
    """
    try:
        return method.run(design, random_seed=random_seed, progressbar=progressbar)
    except SamplingInterrupted as stop:
        if progressbar:
            print(stop, flush=True)
        return stop.fit
