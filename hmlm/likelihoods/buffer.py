"""A flat buffer of numbers in which arrays are found by their place."""

from __future__ import annotations

import numpy as np


class Buffer:
    """Numbers one after the other, with the place of each array.

    Parameters
    ----------
    reserved : int
        Numbers at the front, for the tables that hold the places.
    """

    def __init__(self, reserved: int) -> None:
        self._pieces: list[np.ndarray] = []
        self.length = reserved

    def add(self, values: np.ndarray) -> int:
        """Append values and return their place."""
        flat = np.ascontiguousarray(values, dtype=float).reshape(-1)
        place = self.length
        self._pieces.append(flat)
        self.length += len(flat)
        return place

    def finish(self, front: np.ndarray) -> np.ndarray:
        """Return the whole buffer, with its length in the first place of the front."""
        front[0] = self.length
        return np.concatenate([front, *self._pieces])
