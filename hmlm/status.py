"""What a fit has to say about itself, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Status:
    """Whether a fit can be trusted, and what to do where it cannot.

    Attributes
    ----------
    converged : bool
        True when nothing was found that makes the estimates unreliable.
    problems : tuple of str
        Sentences that say what is wrong and what to do next.
    notes : tuple of str
        Sentences worth knowing that cast no doubt on the estimates (which road was taken, rows
        left out).
    numbers : mapping of str to float
        The figures behind the sentences.
    """

    converged: bool
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return all the sentences, one a line."""
        head = "No problems found." if self.converged and not self.problems else ""
        return "\n".join(filter(None, [head, *self.problems, *self.notes]))
