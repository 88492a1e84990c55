"""Ways to fit a design: one method a file, and the two kinds of result."""
