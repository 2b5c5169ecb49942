"""The numbers themselves, without any HTTP."""

import random


class InvalidRange(ValueError):
    """The range holds no number of the wanted kind."""


def random_number(low: int, high: int) -> int:
    """A random number from ``low`` to ``high``, both included."""
    if low > high:
        raise InvalidRange(f"{low} is greater than {high}")
    return random.randint(low, high)


def even_number(low: int, high: int) -> int:
    """A random even number from ``low`` to ``high``, both included."""
    first = low + low % 2
    last = high - high % 2
    if first > last:
        raise InvalidRange(f"there is no even number from {low} to {high}")
    return 2 * random_number(first // 2, last // 2)
