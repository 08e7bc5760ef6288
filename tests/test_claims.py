"""Verdicts follow the rule that is written down, and exercises say what they expected."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from convergent import claims
from convergent.certainty import over_networks
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


def test_a_claim_of_the_ledger_brings_its_words_and_all_that_was_found():
    high, low = "familiar images", "shifted images"
    runs = {"this run: x": table([0.5, 0.6, 0.9], [0.4, 0.3, 0.5]).replace({"high": high, "low": low})}
    row = claims.weigh("shift_lowers", runs | {"published: y": runs["this run: x"].query("condition == @high")})
    own = claims.weigh(row["claim"], row["who says so"], runs, high, low)
    assert row["this run: x"] == own["this run: x"]
    assert (row["id"], row["published: y"], row["runs"]["published: y"]) == ("shift_lowers", *["not measured"] * 2)
    assert "id" not in own, "a claim of one's own is not in the ledger"
    found = row["runs"]["this run: x"]
    assert [found[name] for name in ("by", "n", "n_holds", "n_independent")] == ["network", 3, 3, 3]
    assert found["difference"] == pytest.approx(0.8 / 3)
    reach = 4.302653 * np.std([0.1, 0.3, 0.4], ddof=1) / 3**0.5  # Student's t, two degrees of freedom
    assert found["difference_high"] - found["difference"] == pytest.approx(reach, abs=1e-6)


def test_what_is_undefined_in_every_network_supports_no_claim_and_has_no_interval():
    found = claims.compared(table([0.5, 0.6], [math.nan, math.nan]), "high", "low")
    assert (found["verdict"], found["n_holds"], found["n_independent"]) == ("not reproduced", 0, None)
    assert math.isnan(found["difference"])
    assert math.isnan(found["difference_low"])
    assert "low nan [nan, nan]; in 0 of 2 networks" in claims.row("c", "s", {"run": found})["run"]


def test_a_margin_has_to_be_exceeded():
    for margin, holds in ((0.0, 3), (0.15, 2), (0.35, 1)):
        found = claims.compared(table([0.5, 0.6, 0.9], [0.4, 0.3, 0.5]), "high", "low", margin)
        assert found["n_holds"] == holds
    row = claims.row("c", "s", {"run": found})
    assert row["run"].endswith("in 1 of 3 networks by more than 0.35")
    assert row["run: verdict"] == "not reproduced"


def test_the_interval_of_pairs_is_one_over_networks_whatever_their_names_tell_besides():
    effects = dict(zip("0123", (0.0, 0.1, 0.2, 0.4), strict=True))
    pairs = {f"{a}-{b}": effects[a] + effects[b] for a, b in combinations("0123", 2)}
    mean, low, high = over_networks({tuple(pair.split("-")): value for pair, value in pairs.items()})
    assert claims.interval(pd.Series(pairs), "pair") == pytest.approx((low, high, 2))
    named = pd.Series({f"cnn6 {pair}": value for pair, value in pairs.items()})
    assert claims.interval(named, "pair") == pytest.approx((low, high, 2))
    parts = {f"{pair} layer{i}": value + i - 1.5 for pair, value in pairs.items() for i in (1, 2)}
    assert claims.interval(pd.Series(parts), "pair") == pytest.approx((low, high, 2)), "parts are averaged in a pair"
    two = pd.concat([named, named.rename(lambda name: name.replace("cnn6", "vgg11"))])
    assert claims.interval(two, "pair") == pytest.approx(
        (mean - (mean - low) / 2**0.5, mean + (high - mean) / 2**0.5, 4)
    ), "two architectures are independent of each other"


def test_pairs_that_share_no_network_count_each_and_few_networks_give_no_interval():
    apart = pd.Series({f"cnn6 x vgg11 {i}-{i}": value for i, value in enumerate((0.1, 0.2, 0.6))})
    low, high, n = claims.interval(apart, "pair")
    assert n == 3
    assert (low + high) / 2 == pytest.approx(0.3)
    assert high - 0.3 == pytest.approx(4.302653 * apart.sem(), abs=1e-6)
    for few in (pd.Series({"0-1": 0.3}), pd.Series({"0-1": 0.3, "0-2": 0.1}), apart[:2]):
        low, high, n = claims.interval(few, "pair")
        assert np.isnan([low, high]).all()
    low, high, n = claims.interval(pd.Series({"1": 0.1, "2": 0.2}), "pair")  # who is in them, the names do not tell
    assert np.isnan([low, high]).all()
    assert n is None
    assert claims.tosses(n) is None


def test_networks_with_long_names_make_pairs_too():
    names = [f"cnn6, the cave, seed {i}" for i in range(3)]
    pairs = [f"{a} × {b}" for a, b in combinations(names, 2)]
    expected = over_networks({(0, 1): 0.1, (0, 2): 0.2, (1, 2): 0.4})[1:]
    assert claims.interval(pd.Series(dict(zip(pairs, (0.1, 0.2, 0.4), strict=True))), "pair") == (*expected, 1)
    dashed = pd.Series(dict(zip([pair.replace("×", "–") for pair in pairs], (0.1, 0.2, 0.4), strict=True)))
    assert claims.interval(dashed, "network") == (*expected, 1), "whatever the column is called"
    parts = {f"{pair}, layer{i}": v + i - 1.5 for pair, v in zip(pairs, (0.1, 0.2, 0.4), strict=True) for i in (1, 2)}
    assert claims.interval(pd.Series(parts), "pair") == pytest.approx((*expected, 1))


def test_coins_reproduce_a_claim_as_often_as_the_ledger_says_at_most():
    rng = np.random.default_rng(0)
    networks = rng.normal(size=(4_000, 4))
    pairs = np.stack([networks[:, a] + networks[:, b] for a, b in combinations(range(4), 2)], axis=1)
    assert (networks > 0).all(1).mean() == pytest.approx(claims.tosses(4), abs=0.02)
    assert (pairs > 0).all(1).mean() <= claims.tosses(2)
    assert (pairs > 0).all(1).mean() > 0.5**6, "six pairs of four networks are not six coins"


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
