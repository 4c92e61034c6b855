"""Round numbers for the axis of a plot."""

import math


def steps(low: float, high: float, about: int = 5) -> list[float]:
    """Round values from at or below `low` to at or above `high`, in steps of 1, 2 or 5 times a power of ten.

    >>> steps(0.67, 0.76), steps(0.5, 0.5)
    ([0.66, 0.68, 0.7, 0.72, 0.74, 0.76], [0.44, 0.46, 0.48, 0.5, 0.52, 0.54, 0.56])
    """
    if high - low < 1e-6 * max(abs(low), abs(high), 1.0):
        low, high = low - 0.05 * max(abs(low), 1.0), high + 0.05 * max(abs(high), 1.0)
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10 - min(math.floor(math.log10(step)), 0)) for index in range(first, last + 1)]
