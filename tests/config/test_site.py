"""What a profile says of the machines: the time that jobs ask for, and errors."""

import pytest

from quark.config import ConfigError
from quark.config.site import Site, take_site


def test_a_profile_sets_the_machines_and_the_rest_stays() -> None:
    over = {"auto_precision": "bf16", "longest": 60, "seeds": [1]}
    site = take_site(over)
    assert (site.auto_precision, site.longest, site.tflops) == ("bf16", 60, None)
    assert over == {"seeds": [1]}


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"auto_precision": "fast"}, "auto_precision = 'fast'"),
        ({"tflops": 0}, "tflops = 0: Input should be greater than 0"),
        ({"checkpoints": "first"}, "checkpoints = 'first': Input should be 'all' or 'last'"),
    ],
)
def test_a_wrong_value_is_named(over: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        take_site(over)


def test_a_job_asks_for_twice_its_plan_and_a_quarter_of_an_hour() -> None:
    site = Site()
    assert site.minutes(240, None) == 240
    assert site.minutes(240, 3600.0) == 15 + 2 * 60
    assert site.minutes(240, 61.0, attempt=3) == 3 * (15 + 2 * 2)


def test_no_job_asks_for_more_than_a_partition_allows() -> None:
    site = Site(longest=100)
    assert [site.minutes(60, None, attempt) for attempt in (1, 2, 3)] == [60, 100, 100]
    assert site.minutes(60, 1e6) == 100
