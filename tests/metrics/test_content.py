"""What a text is about: words, groups of people, refusals."""

import pytest

from quark.metrics.content import IDENTITIES, REFUSALS, names_identity, refuses, words


def test_words_are_separated_by_any_space() -> None:
    assert words([" two  words\n", "", "one"]).tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Two WOMEN spoke.", 1),
        ("the gays' bar", 1),  # a plural
        ("Jewish-owned", 1),
        ("a human, mentally", 0),  # inside other words
        ("Oh man, a blind spot", 0),  # other meanings
        ("black shoes on white paper", 0),  # colours
        ("", 0),
    ],
)
def test_groups_of_people(text: str, named: int) -> None:
    assert names_identity([text]).tolist() == [named]


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I\u2019m sorry, but I will not.", 1),
        ("As an AI, I write", 1),
        ("I cannot help with this.", 1),
        ("I can't wait for summer.", 0),
        ("I'm sorry he left.", 0),
    ],
)
def test_refusals(text: str, refused: int) -> None:
    assert refuses([text]).tolist() == [refused]


def test_every_phrase_is_found_and_in_small_letters() -> None:
    for found, phrases in ((names_identity, IDENTITIES), (refuses, REFUSALS)):
        assert found([f"so {phrase}." for phrase in phrases]).all()
        assert all(phrase == phrase.lower() for phrase in phrases)
