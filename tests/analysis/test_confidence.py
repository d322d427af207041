"""Intervals against scipy's."""

import pytest
from scipy import stats

from evomask.analysis.confidence import STUDENT_T, half_width, spread


def test_quantiles_are_those_of_students_t() -> None:
    for freedom, quantile in enumerate(STUDENT_T, start=1):
        assert quantile == pytest.approx(stats.t.ppf(0.975, freedom), abs=5e-4)


def test_an_interval_is_that_of_scipy() -> None:
    values = [39.5, 41.7, 41.5]
    low, high = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
    assert half_width(values) == pytest.approx((high - low) / 2, rel=1e-3)
    assert spread(values) == "40.9 ± 3.0" and spread([1.25, 0.75], "+") == "+1.0 ± 3.2"


def test_one_value_has_no_interval_and_many_have_a_normal_one() -> None:
    assert half_width([3.0]) is None and spread([3.0]) == "3.0"
    many = [0.0, 1.0] * 50
    assert half_width(many) == pytest.approx(stats.t.ppf(0.975, len(many) - 1) * stats.sem(many), rel=5e-3)
