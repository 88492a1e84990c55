"""A design becomes a PyMC model in three steps: coefficients, covariance, likelihood."""
