"""The numbers of workers, as a tag keeps them."""

from __future__ import annotations

import pytest

from infra.numbers import MOST_CHARACTERS, Numbers, number_of


def numbers(*wanted: int, highest: int) -> Numbers:
    return Numbers(wanted=frozenset(wanted), highest=highest)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1-3,5/6", numbers(1, 2, 3, 5, highest=6)),
        ("7/7", numbers(7, highest=7)),
        ("/4", numbers(highest=4)),
    ],
)
def test_a_tag_says_who_is_wanted_and_the_highest_number_given(text: str, meant: Numbers) -> None:
    assert Numbers.parse(text) == meant
    assert str(meant) == text


@pytest.mark.parametrize("text", ["", "3", "a/b", "1-/2", "1,,2/3", "-1/1"])
def test_what_is_no_such_value_says_nothing(text: str) -> None:
    assert Numbers.parse(text) == Numbers()


def test_a_number_that_was_taken_away_is_not_given_again() -> None:
    after = Numbers().grown_to(4).without([4, 2])
    assert after.names == ("worker-1", "worker-3")
    assert after.grown_to(3).names == ("worker-1", "worker-3", "worker-5")


def test_a_thousand_scattered_numbers_fit_into_a_tag_and_keep_the_highest() -> None:
    scattered = Numbers().grown_to(1000).without(range(2, 1000, 2))
    assert len(str(scattered)) <= MOST_CHARACTERS
    read = Numbers.parse(str(scattered))
    assert read.highest == 1000
    assert read.wanted < scattered.wanted
    assert read.including(scattered.wanted) == scattered


def test_only_a_worker_has_a_number() -> None:
    assert [number_of(name) for name in ("worker-12", "master", "i-0123", "worker-")] == [
        12,
        None,
        None,
        None,
    ]
