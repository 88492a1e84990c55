"""The version of hmlm."""

__version__ = "0.1.0"
