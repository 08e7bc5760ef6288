"""Whether an exercise is done."""

import math


def check(what: str, answer: float, low: float, high: float, hint: str) -> bool:
    """Say whether `answer` is right; if not, what was expected and where to look again.

    It never stops a run: on other images or networks than the book's, an answer may rightly lie elsewhere.

    Parameters
    ----------
    what : the quantity, in words
    answer : the reader's number
    low, high : the range in which it lies for the book's own images and networks

    Returns
    -------
    bool, whether `answer` lies in the range
    """
    answer = float(answer)
    if low <= answer <= high:  # not so for NaN
        print(f"✓ {what}: {answer:.3g}")
        return True
    expected = f"{low:.3g}" if math.isclose(low, high) else f"between {low:.3g} and {high:.3g}"
    print(f"✗ {what} came out as {answer:.3g}; expected {expected}. {hint}")
    return False
