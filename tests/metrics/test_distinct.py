import random

import pytest

from quark.metrics.distinct import distinct_n


@pytest.mark.parametrize(
    ("texts", "n", "expected"),
    [
        (["a b a b"], 1, 2 / 4),
        (["a b a b"], 2, 2 / 4),  # (a b) (b a) over four words, not over three 2-grams
        (["a b a b"], 3, 2 / 4),
        (["a b c", "a b d"], 2, 3 / 6),  # pooled: (a b) once
        ([" a b"], 1, 3 / 3),  # a leading space is an empty word
        ([" a b"], 2, 2 / 3),
        (["a  b"], 1, 3 / 3),  # so is what lies between two spaces
        (["a\nb"], 1, 1 / 1),  # only spaces part words
        ([""], 1, 1 / 1),  # the empty text is one empty word
        (["", ""], 1, 1 / 2),
        ([""], 2, 0),
        (["a", ""], 2, 0 / 2),
        (["a_b c a b_c"], 2, 3 / 4),  # joined by "_" the first and third would be one
    ],
)
def test_worked_examples(texts: list[str], n: int, expected: float) -> None:
    assert distinct_n(texts, n) == expected


def test_against_plain_loop() -> None:
    rng = random.Random(0)
    for _ in range(50):
        texts = [" ".join(rng.choices("abcd", k=rng.randrange(1, 9))) for _ in range(5)]
        for n in (1, 2, 3):
            seen, words = [], 0
            for text in texts:
                split = text.split(" ")
                words += len(split)
                while len(split) >= n:
                    if split[:n] not in seen:
                        seen.append(split[:n])
                    split = split[1:]
            assert distinct_n(texts, n) == len(seen) / words


@pytest.mark.parametrize(("texts", "n"), [([], 1), (["a"], 0)])
def test_refuses(texts: list[str], n: int) -> None:
    with pytest.raises(ValueError, match=f"dist-{n} of {len(texts)} texts"):
        distinct_n(texts, n)
