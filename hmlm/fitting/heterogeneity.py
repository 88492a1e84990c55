"""How much the studies of a meta-analysis differ beyond their standard errors."""

from __future__ import annotations

import numpy as np

from hmlm.design import Design


def heterogeneity(design: Design, tau2: float) -> dict[str, float]:
    r"""Return Cochran's Q with I^2 and H^2, for studies with known standard errors.

    With weights w_i = 1 / se_i^2, W = diag(w), k studies and p population coefficients,

    - Q is the weighted residual sum of squares when all studies are pooled completely [1]_; if
      they do not differ it is chi-squared with k - p degrees of freedom;
    - the typical sampling variance is s^2 = (k - p) / tr(P), P = W - W X (X'W X)^-1 X'W, which
      without predictors is (k - 1) sum(w) / (sum(w)^2 - sum(w^2)) [2]_;
    - I^2 = tau^2 / (tau^2 + s^2), a share between 0 and 1 of the variance of the estimates;
    - H^2 = (tau^2 + s^2) / s^2 = 1 / (1 - I^2).

    tau^2 is that of the fit, as in metafor [3]_, so that I^2 and H^2 agree with its sd of the
    effects; with the moment estimate of DerSimonian and Laird in its place H^2 would be
    Q / (k - p).

    Parameters
    ----------
    design : Design
        A model with known standard errors.
    tau2 : float
        Estimated variance of the effects between studies.

    Returns
    -------
    dict of str to float
        ``Q``, ``Q_df``, ``I2`` and ``H2``; empty where the model is not one intercept for each
        study with one row a study.

    References
    ----------
    .. [1] Cochran (1954), The combination of estimates from different experiments, Biometrics 10,
       101-129.
    .. [2] Higgins and Thompson (2002), Quantifying heterogeneity in a meta-analysis, Statistics in
       Medicine 21, 1539-1558.
    .. [3] Viechtbauer (2010), Conducting meta-analyses in R with the metafor package, Journal of
       Statistical Software 36(3).

    Examples
    --------
    >>> import hmlm
    >>> eight = hmlm.load_dataset("eight_schools")
    >>> design = hmlm.Model("se(y, sigma) ~ 1 + (1 | school)", eight).design
    >>> {k: round(v, 3) for k, v in heterogeneity(design, tau2=0.0).items()}
    {'Q': 4.707, 'Q_df': 7.0, 'I2': 0.0, 'H2': 1.0}
    """
    if not has_heterogeneity(design):
        return {}
    n, p = design.n_rows, design.X.shape[1]
    X, y = design.X, design.response
    if design.cells is not None and design.cells.ones is not None:
        root = design.cells.ones  # X and y are weighted already
    else:
        assert design.weights is not None
        root = np.sqrt(design.weights)
        X, y = root[:, None] * X, root * y
    Q, _ = np.linalg.qr(X)
    residual = y - Q @ (Q.T @ y)
    trace = float((root**2).sum() - ((root[:, None] * Q) ** 2).sum())
    typical = (n - p) / trace
    return {
        "Q": float(residual @ residual),
        "Q_df": float(n - p),
        "I2": tau2 / (tau2 + typical),
        "H2": 1 + tau2 / typical,
    }


def has_heterogeneity(design: Design) -> bool:
    """Whether a model is a meta-analysis of studies with one row and one effect each."""
    if not design.known_se or len(design.blocks) != 1 or design.n_rows <= design.X.shape[1]:
        return False
    (block,) = design.blocks
    if block.Z.shape[1] != 1 or len(block.levels) != design.n_rows:
        return False
    return block.columns == ("Intercept",) or bool((block.Z == 1).all())
