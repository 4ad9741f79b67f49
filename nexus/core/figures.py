"""Numbers for display: returns have any magnitude, and 0.0 would hide a return of 0.004."""

from math import floor, isfinite, log10

__all__ = ["figures"]

SIGNIFICANT = 3
SMALLEST_DECIMAL = 1e-4  # below it, use an exponent


def figures(*values: float, least: int = 1) -> list[str]:
    """Return numbers as text, with the decimals that the largest needs for three significant digits.

    Args:
        values: numbers that belong together, such as a mean and its interval.
        least: minimum number of decimals.
    """
    largest = max((abs(value) for value in values if isfinite(value)), default=0.0)
    if 0 < largest < SMALLEST_DECIMAL:
        return [f"{value:.{SIGNIFICANT - 1}e}" for value in values]
    decimals = least if largest == 0 else max(least, SIGNIFICANT - 1 - floor(log10(largest)))
    return [f"{value:,.{decimals}f}" for value in values]
