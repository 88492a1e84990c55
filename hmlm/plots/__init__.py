"""Figures: any fit in, Matplotlib axes out."""
