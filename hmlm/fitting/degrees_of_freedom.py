"""Degrees of freedom of t tests for population coefficients."""

from __future__ import annotations

import numpy as np

from hmlm.design import Design


def inner_outer(design: Design) -> np.ndarray:
    """Return nlme's degrees of freedom.

    A coefficient is tested at the innermost level at which its column varies: with m_i groups and
    p_i such columns at level i, it has m_i - (m_{i-1} + p_i) degrees of freedom; the intercept is
    tested at the innermost (Pinheiro & Bates 2000, section 2.4.2).

    Returns
    -------
    ndarray, shape (p,)
        Degrees of freedom; NaN where a level has none left.
    """
    X, terms = design.X, design.terms
    n, p = X.shape
    outer_first = sorted(design.blocks, key=lambda b: len(b.levels))
    m = [int("Intercept" in terms), *(len(b.levels) for b in outer_first), n]
    level = np.full(p, len(outer_first) + 1)
    for i in range(len(outer_first), 0, -1):
        block = outer_first[i - 1]
        first = np.full(len(block.levels), -1)
        first[block.index[::-1]] = np.arange(n)[::-1]
        constant = (X == X[first[block.index]]).all(axis=0)
        level[constant & (level == i + 1)] = i
    if "Intercept" in terms:
        level[terms.index("Intercept")] = len(outer_first) + 1
    df = np.empty(p)
    for i in range(1, len(outer_first) + 2):
        estimated = [k for k in range(p) if level[k] == i and terms[k] != "Intercept"]
        df[level == i] = m[i] - (m[i - 1] + len(estimated))
    return np.where(df > 0, df, np.nan)
