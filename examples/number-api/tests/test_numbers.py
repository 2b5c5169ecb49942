"""Numbers without HTTP."""

import pytest

from number_api.numbers import InvalidRange, even_number, random_number


@pytest.mark.parametrize(("low", "high"), [(0, 0), (-5, 5), (7, 100)])
def test_random_numbers_stay_in_their_range(low: int, high: int) -> None:
    for _ in range(100):
        assert low <= random_number(low, high) <= high


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-5, -3), (-1, 101)])
def test_even_numbers_are_even_and_stay_in_their_range(low: int, high: int) -> None:
    for _ in range(100):
        number = even_number(low, high)
        assert number % 2 == 0
        assert low <= number <= high


@pytest.mark.parametrize(("low", "high"), [(3, 3), (2, 1)])
def test_a_range_without_even_numbers_is_refused(low: int, high: int) -> None:
    with pytest.raises(InvalidRange):
        even_number(low, high)


def test_a_range_from_high_to_low_is_refused() -> None:
    with pytest.raises(InvalidRange):
        random_number(2, 1)
