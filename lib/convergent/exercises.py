"""Whether an exercise is done."""

import math


def check(what: str, answer: float, low: float, high: float, hint: str) -> None:
    """Say that `answer` is right, or what was expected.

    Parameters
    ----------
    what : the quantity, in words
    answer : the reader's number
    low, high : the range in which a right answer lies
    hint : where to look again

    Raises
    ------
    AssertionError for an answer outside the range, with the range and the hint.
    """
    answer = float(answer)
    if not low <= answer <= high:  # also for NaN
        expected = f"{low:.3g}" if math.isclose(low, high) else f"between {low:.3g} and {high:.3g}"
        raise AssertionError(f"{what} came out as {answer:.3g}; expected {expected}. {hint}")
    print(f"✓ {what}: {answer:.3g}")
