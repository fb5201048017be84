"""`specc size`: laws against their own losses, ranges, digits, and what is outside of a law."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from math import exp
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from specc.cli import cli
from specc.cli.numbers import shown
from specc.cost.laws import BEST, RATES, REPEATED, Loss, Measure, Point, best
from specc.cost.size import Wish, exactly, sizing

LAWS = Path(__file__).parents[1] / "specc" / "cost" / "laws.py"


def size(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["size", *arguments], standalone_mode=True)


def cells(*arguments: str) -> dict[str, list[str]]:
    """Cells of each row; there are two spaces between them."""
    result = size(*arguments)
    assert result.exit_code == 0, result.output
    return {row[0]: row[1:] for row in (re.split(r" {2,}", line) for line in result.stdout.splitlines())}


def amounts(*arguments: str) -> dict[str, float]:
    rows = json.loads(size(*arguments, "--json").stdout)["rows"]
    return {row["name"]: row["amount"]["value"] for row in rows}


def test_the_default_law_gives_the_published_model_from_its_compute() -> None:
    """Hoffmann et al. 2022: 70B parameters and 1.4T tokens for 5.88e23 flops."""
    found = amounts("--flops", "5.88e23")
    assert found["parameters"] == pytest.approx(70e9, rel=0.05) and found["tokens"] == pytest.approx(1.4e12, rel=0.05)
    row = cells("--flops", "5.88e23")["parameters"]
    assert row[:3] == ["73B", "46B .. 120B", "70B"] and "2404.10102" in row[3]


def test_rounded_constants_are_nowhere() -> None:
    """With 406.4, 410.7, 0.34 and 0.28 that compute would be for 32B parameters."""
    assert not re.search(r"406\.4|410\.7|0\.28\b|0\.34\b", LAWS.read_text())
    rounded = Loss("", BEST.fitted, 406.4, 410.7, 0.34, 0.28)
    assert best(rounded, "flops", 5.88e23).parameters == pytest.approx(32e9, rel=0.02)


def loss(law: Loss, at: Point, unique: float | None) -> float:
    """Eq. 5 of Muennighoff et al. 2023, which is that of Hoffmann et al. 2022 where nothing is repeated."""

    def worth(amount: float, new: float, again: float) -> float:
        return new + new * again * (1 - exp(-max(amount / new - 1, 0) / again))

    parameters, tokens = at.parameters, at.tokens
    if unique is not None and law.again is not None and law.more is not None:
        g = (law.alpha * law.a / (law.beta * law.b)) ** (1 / (law.alpha + law.beta))
        fitting = (unique * g) ** (law.beta / law.alpha) * g
        parameters = worth(parameters, min(fitting, parameters), law.more)
        tokens = worth(tokens, min(unique, tokens), law.again)
    return law.a / parameters**law.alpha + law.b / tokens**law.beta


@pytest.mark.parametrize(
    ("law", "unique", "flops"),
    [(BEST, None, 1e18), (BEST, None, 5.88e23), (REPEATED, None, 1e21), (REPEATED, 1e9, 1e20), (REPEATED, 1e10, 1e22)],
)
def test_nothing_of_the_same_compute_has_a_smaller_loss(law: Loss, unique: float | None, flops: float) -> None:
    found = best(law, "flops", flops, 0, unique)
    assert found.flops == pytest.approx(flops, rel=1e-9)
    least = loss(law, found, unique)
    for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2):
        assert loss(law, Point(found.parameters * factor, found.tokens / factor), unique) > least


@pytest.mark.parametrize("served", [0, 1e11, 1e13])
@pytest.mark.parametrize(("law", "unique"), [(BEST, None), (REPEATED, 1e10)])
def test_nothing_of_the_same_loss_takes_less_over_its_life(law: Loss, unique: float | None, served: float) -> None:
    found = best(law, "parameters", 7e9, served, unique)
    same = loss(law, found, unique)
    cost = found.flops + 2 * found.parameters * served
    for factor in (0.9, 0.98, 1.02, 1.1):
        parameters, low, high = found.parameters * factor, found.tokens / 100, found.tokens * 100
        while high / low > 1 + 1e-13:
            middle = (low * high) ** 0.5
            low, high = (middle, high) if loss(law, Point(parameters, middle), unique) > same else (low, middle)
        other = Point(parameters, high)
        assert other.flops + 2 * parameters * served > cost
    assert served == 0 or found.tokens > best(law, "parameters", 7e9, 0, unique).tokens


@pytest.mark.parametrize("of", ["parameters", "tokens", "flops"])
def test_what_is_given_holds_of_what_is_found(of: Measure) -> None:
    start = Point(3e9, 7e10).measure(of)
    for law, served, unique in ((BEST, 0, None), (BEST, 1e12, None), (REPEATED, 1e12, 1e9)):
        assert best(law, of, start, served, unique).measure(of) == pytest.approx(start, rel=1e-9)


def test_rates_and_batches_of_three_laws() -> None:
    """At 1B and 20B, 7B and 140B, 70B and 1.4T: rates within a factor of 2, batches apart by 3 to 5."""
    points = (Point(1e9, 2e10), Point(7e9, 1.4e11), Point(7e10, 1.4e12))
    rates = [[f"{law.rate(at):.1e}" for law in RATES] for at in points]
    batches = [[round(law.batch(at) / 1e6, 1) for law in RATES] for at in points]
    assert rates[:2] == [["1.0e-03", "9.6e-04", "1.1e-03"], ["4.5e-04", "5.9e-04", "5.9e-04"]]
    assert batches == [[0.4, 1.1, 1.4], [1.3, 3.9, 5.3], [5.0, 17.4, 24.5]]


def test_a_law_says_what_it_is_fitted_for_and_what_is_outside() -> None:
    inside, outside = cells("--flops", "1e20"), cells("--flops", "1e23")
    for name in ("parameters", "tokens", "tokens a parameter"):
        assert inside[name][-1].endswith("fitted for 1e18 .. 1e22 flops")
        assert outside[name][-1].endswith("fitted for 1e18 .. 1e22 flops: outside")
    assert outside["learning rate"][-1].endswith("fitted for 60M .. 1.1B parameters: outside")
    assert not inside["batch, tokens"][-1].endswith("outside")


def test_tokens_that_are_few_have_a_law_of_their_own() -> None:
    """Up to four times is as good as new."""
    new = best(BEST, "flops", 1e21).tokens
    assert "2404.10102" in cells("--flops", "1e21", "--unique", str(round(new / 3.9)))["tokens"][-1]
    few = cells("--flops", "1e21", "--unique", str(round(new / 4.1)))
    assert "2305.16264" in few["tokens"][-1] and "2305.16264" in few["worth in new tokens"][-1]
    assert amounts("--flops", "1e21", "--unique", "1B")["worth in new tokens"] < 1e9 * (1 + (REPEATED.again or 0))
    assert amounts("--flops", "1e21", "--unique", "1B")["data"] == 2e9
    met = cells("--flops", "1e21", "--unique", "100M")["times each is met"]
    assert float(met[0]) > 500 and met[-1].endswith("fitted for up to 500: outside")
    assert not few["times each is met"][-1].endswith("outside")


def test_serving_makes_the_model_smaller() -> None:
    plain, served = amounts("--flops", "1e22"), amounts("--flops", "1e22", "--served", "10T")
    assert served["parameters"] < 0.6 * plain["parameters"] and served["compute"] == 1e22
    assert served["compute in all"] == pytest.approx(1e22 + 2e13 * served["parameters"])


def test_no_number_has_more_digits_than_its_range_allows() -> None:
    for arguments in (["--flops", "5.88e23"], ["--params", "1B", "--served", "1T", "--unique", "1B"]):
        for name, (amount, ends, *_) in cells(*arguments).items():
            if ".." in ends:
                for text in (amount, *ends.split(" .. ")):
                    digits = re.sub(r"e.*|\D", "", text).strip("0")
                    assert len(digits) <= 2, f"{name}: {text}"


def test_a_model_too_small_for_a_shape_has_no_embeddings_to_count() -> None:
    assert amounts("--params", "100K")["embeddings among them"] == 0
    assert amounts("--params", "1B")["embeddings among them"] == 2048 * 32768


def test_bytes_follow_from_parameters() -> None:
    found = amounts("--params", "8B", "--tokens", "15T")
    assert (found["weights in bf16"], found["memory of training"], found["checkpoint"]) == (16e9, 128e9, 96e9)
    assert found["compute"] == 6 * 8e9 * 15e12 and found["data"] == 30e12
    assert amounts("--params", "8B", "--tokens", "15T", "--vocab", "65537")["data"] == 60e12


def test_two_that_are_given_decide_the_third() -> None:
    found = cells("--params", "8B", "--flops", "7.2e23")
    assert found["tokens"][0] == "15T" and "6 N D" in found["tokens"][-1] and found["parameters"][-1] == "given"
    assert amounts("--tokens", "15T", "--flops", "7.2e23")["parameters"] == pytest.approx(8e9)


def test_a_budget_is_compute_of_a_device() -> None:
    """989.5e12 flops a second at MFU 0.4 are 1.42e18 an hour."""
    found = cells("--budget", "1M", "--device", "h100")
    assert found["compute, flops"][:2] == ["1.4e24", "1.2e24 .. 1.6e24"] and found["MFU"][:2] == ["0.4", "0.35 .. 0.45"]
    assert found["device hours"][0] == "1M" and found["device hours"][-1] == "given"
    known = amounts("--budget", "1M", "--device", "h100", "--mfu", "0.4")
    assert known["compute"] == pytest.approx(0.4 * 989.5e12 * 3600e6)
    assert known["parameters"] == pytest.approx(best(BEST, "flops", known["compute"]).parameters)


def test_hours_and_devices_follow_from_compute_and_memory() -> None:
    found = amounts("--params", "8B", "--tokens", "15T", "--device", "h100", "--gpus", "1024", "--mfu", "0.4")
    hours = 6 * 8e9 * 15e12 / (0.4 * 989.5e12 * 3600)
    assert found["device hours"] == pytest.approx(hours) and found["hours on 1024"] == pytest.approx(hours / 1024)
    assert found["devices at least"] == 2  # 128 GB of states, 85 GB each
    ranged = cells("--params", "8B", "--tokens", "15T", "--device", "h100")
    assert ranged["device hours"][:2] == ["510K", "450K .. 580K"]


def test_a_device_that_is_not_there_is_told() -> None:
    result = CliRunner().invoke(cli, ["size", "--params", "1B", "--device", "h10"], standalone_mode=False)
    assert result.return_value == 1 and "error[E701]: there is no device h10" in result.stdout


def test_json_is_the_table_without_rounding() -> None:
    rows = json.loads(size("--tokens", "2e10", "--json").stdout)["rows"]
    assert rows == json.loads(json.dumps([asdict(row) for row in sizing(Wish(tokens=2e10))]))
    assert rows[2]["amount"] == asdict(exactly(2e10)) and rows[2]["source"] == "given"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "say one or two of --params, --tokens, and --flops or --budget"),
        ("--params 1B --tokens 1B --flops 1e20", "two decide the third: leave one out"),
        ("--flops 1e20 --budget 7 --device h100", "--flops and --budget are both the compute"),
        ("--budget 7", "--budget is of a --device"),
        ("--params 1B --gpus 8", "--gpus is of a --device"),
        ("--params 1B --mfu x --device h100", "'x' is no share: write 0.4 or 0.35..0.45"),
        ("--params 1B --mfu 0.5..0.4 --device h100", "0.5..0.4 is not between 0 and 1, the smaller first"),
        ("--params 1Q", "'1Q' is no number: write 70B, 15T or 5.88e23"),
        ("--tokens -5", "'-5' is no number"),
        ("--flops inf", "'inf' is no number"),
        ("--params 10", "10 is not between 1K and 1e18"),
        ("--flops 1e999", "1e999 is not between 1B and 1e36"),
    ],
)
def test_a_wrong_wish_is_two_and_says_what_would_be_right(arguments: str, said: str) -> None:
    result = size(*arguments.split())
    assert result.exit_code == 2 and said in result.stderr and not result.stdout


@pytest.mark.parametrize(
    ("number", "digits", "unit", "text"),
    [
        (72.96e9, 2, "", "73B"),
        (115.4e9, 2, "", "120B"),
        (999.6e9, 2, "", "1T"),
        (1.5e12, 1, "", "2T"),
        (5.88e23, 4, "", "5.88e23"),
        (1e21, 4, "flops", "1e21"),
        (146e9, 2, "bytes", "150 GB"),
        (12, 4, "bytes", "12 B"),
        (1.62e-4, 2, "", "1.6e-4"),
        (18.38, 2, "", "18"),
        (0.5, 2, "", "0.5"),
        (0, 2, "", "0"),
    ],
)
def test_numbers_are_rounded_and_have_suffixes(number: float, digits: int, unit: str, text: str) -> None:
    assert shown(number, digits, unit) == text


@pytest.mark.parametrize(("text", "number"), [("70B", 70e9), ("5.88e23", 5.88e23), ("15t", 15e12), ("1_000K", 1e6)])
def test_numbers_are_read_with_their_suffixes(text: str, number: float) -> None:
    name, row = ("--tokens", "tokens") if number < 1e20 else ("--flops", "compute")
    assert amounts(name, text)[row] == number
