"""Likelihoods with the group effects integrated out."""
