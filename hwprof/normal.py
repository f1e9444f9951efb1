"""The normal distribution, as far as 95 % intervals need it."""

NORMAL_975 = 1.959963984540054
"""Its 97.5 % quantile: standard deviations that a 95 % interval reaches either way."""
