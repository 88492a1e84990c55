"""What every fit can do after it is made: be checked, kept, and fitted again with changes."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from hmlm.design import Design
from hmlm.spec import POOLING_WORDS

if TYPE_CHECKING:
    from pathlib import Path

    from hmlm.checks import Checks


class FitMethods:
    """Methods that Bayesian and classical fits share."""

    __slots__ = ()

    design: Design
    method: Any

    @property
    def label(self) -> str:
        """Short name of the fit for the head of a column."""
        pooling = self.design.spec.pooling
        return (
            str(self.method)
            if pooling == "partial"
            else f"{self.method} ({POOLING_WORDS[pooling]})"
        )

    def check(self, draws: int = 500, random_seed: int | None = None) -> Checks:
        """Check the fit against data replicated from it; see `hmlm.check_fit`.

        Parameters
        ----------
        draws : int
            Replicated data sets.
        random_seed : int, optional
            Their seed.

        Returns
        -------
        Checks
            A row a check, with its verdict and the next step.
        """
        from hmlm.checks import check_fit

        return check_fit(self, draws=draws, random_seed=random_seed)

    def save(self, path: str | PathLike[str], *, effects: bool = True) -> None:
        """Save the fit with the table it was made from; `hmlm.load` brings it back.

        Parameters
        ----------
        path : str or path
            A file or folder that ends in ``.zarr``, ``.zip`` or ``.nc``.
        effects : bool
            Whether to save the draws of group effects.
        """
        from hmlm.storage import save_fit

        save_fit(self, path, effects=effects)

    def report(
        self, path: str | PathLike[str], random_seed: int | None = None, draws: int = 500
    ) -> Path:
        """Write the fit as one HTML page that can be handed out; see `hmlm.write_report`.

        Parameters
        ----------
        path : str or path
            A file that ends in ``.html``.
        random_seed : int, optional
            Seed of the replicated data.
        draws : int
            Replicated data sets.

        Returns
        -------
        Path
            The file.
        """
        from hmlm.report import write_report

        return write_report(self, path, random_seed=random_seed, draws=draws)

    def update(
        self,
        data: Any = None,
        priors: Any = None,
        formula: Any = None,
        method: Any = None,
        random_seed: int | None = None,
        progressbar: bool = True,
    ) -> Any:
        """Fit again with changes, the rest as it was; see `hmlm.update_fit`.

        Parameters
        ----------
        data : data frame, optional
            Another table.
        priors : mapping of str to Prior, optional
            Priors to change; None as a value brings the default back.
        formula : str, optional
            Another formula, in which ``.`` stands for the old side: ``". ~ . + x"``.
        method : object, optional
            Another method.
        random_seed : int, optional
            Seed.
        progressbar : bool
            Whether to show a progress bar.
        """
        from hmlm.refitting import update_fit

        return update_fit(
            self,
            data,
            priors,
            formula,
            method,
            random_seed,
            progressbar=progressbar,
        )
