"""Verdicts follow the rule that is written down, and exercises say what they expected."""

import math

import numpy as np
import pandas as pd
import pytest

from convergent import claims
from convergent.exercises import check

pytestmark = pytest.mark.smoke


def table(high, low, by="network"):
    rows = [(i, "high", value) for i, value in enumerate(high)] + [(i, "low", value) for i, value in enumerate(low)]
    return pd.DataFrame(rows, columns=[by, "condition", "value"])


@pytest.mark.parametrize(
    ("holds", "expected"),
    [
        ([True, True, True], "reproduced"),
        ([True, True, False], "partly"),
        ([True, False], "not reproduced"),
        ([False, False, False], "not reproduced"),
    ],
)
def test_a_verdict_is_whole_when_all_agree_and_part_when_most_do(holds, expected):
    assert claims.verdict(holds) == expected


def test_no_measurement_gives_no_verdict():
    with pytest.raises(ValueError, match="no measurement, no verdict"):
        claims.verdict([])


def test_a_claim_is_weighed_within_each_network_and_not_over_all_of_them():
    # On average low exceeds high by far, yet in two of three networks high exceeds low.
    row = claims.weigh("c", "s", {"run": table([0.2, 0.3, 0.1], [0.1, 0.2, 0.9])}, "high", "low")
    assert row["run: verdict"] == "partly"
    assert row["run"] == "high 0.20 [0.10, 0.30]; low 0.40 [0.10, 0.90]; in 2 of 3 networks"


def test_several_values_of_one_pair_are_averaged_before_they_are_compared():
    twice = pd.concat([table([1.0, 0.0], [0.6, 0.5], "pair"), table([0.0, 0.8], [0.0, 0.1], "pair")])
    row = claims.weigh("c", "s", {"run": twice}, "high", "low")
    assert row["run"] == "high 0.45 [0.40, 0.50]; low 0.30 [0.30, 0.30]; in 2 of 2 pairs"


def test_a_run_that_lacks_a_condition_gets_no_verdict_and_the_others_keep_theirs():
    whole, part = table([0.5], [0.2]), table([0.5], [])
    row = claims.weigh("c", "s", {"this": part, "that": whole}, "high", "low")
    assert row["this"] == "not measured"
    assert "this: verdict" not in row
    assert row["that: verdict"] == "reproduced"
    with pytest.raises(ValueError, match="claim 'c': no run has both 'high' and 'low'"):
        claims.weigh("c", "s", {"this": part}, "high", "low")


def test_equal_values_do_not_support_a_claim():
    assert claims.weigh("c", "s", {"run": table([0.5], [0.5])}, "high", "low")["run: verdict"] == "not reproduced"


@pytest.mark.parametrize("answer", [0.1, np.float64(0.15), 0.2])
def test_a_right_answer_is_ticked(answer, capsys):
    assert check("share", answer, 0.1, 0.2, "look again")
    assert capsys.readouterr().out.startswith("✓ share: 0.")


@pytest.mark.parametrize("answer", [0.0999, 0.21, math.nan, math.inf])
def test_a_wrong_answer_hears_what_was_expected_and_where_to_look(answer, capsys):
    assert not check("share", answer, 0.1, 0.2, "Look at section 2.")
    said = capsys.readouterr().out
    assert said.startswith("✗ share came out as ")
    assert "between 0.1 and 0.2. Look at section 2." in said
