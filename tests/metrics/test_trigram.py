"""The trigram model: a law over words, which prefers common wording."""

import logging
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from quark.metrics import trigram
from quark.metrics.trigram import word_likelihoods

pytest.importorskip("pocketsphinx", reason="no wheels for this Python")


def likelihoods(*texts: str) -> list[float]:
    return word_likelihoods(texts)[0].tolist()


def test_the_probabilities_of_the_next_word_sum_to_one() -> None:
    """Over the words of the package's dictionary, which are nearly all that the model knows."""
    import pocketsphinx

    lines = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict")).read_text().splitlines()
    words = {line.split()[0] for line in lines}
    words = {word for word in words if trigram.WORD.fullmatch(word)}
    before = sum(likelihoods("of the"))
    after, known = word_likelihoods([f"of the {word}" for word in sorted(words)])
    total = sum(math.exp(each - before) for each, n in zip(after, known, strict=True) if n == 3)
    assert 0.95 < total < 1.001  # abbreviations such as u.s. are not in it; logarithms are rounded


def test_a_word_is_read_after_the_two_before_it() -> None:
    one, two, three, four = likelihoods("you", "thank you", "i thank you", "if i thank you")
    assert two - likelihoods("thank")[0] > one  # after thank, you is likelier
    # The fourth word back plays no part: the last word adds the same to both.
    assert four - likelihoods("if i thank")[0] == pytest.approx(three - likelihoods("i thank")[0])


def test_common_wording_is_likelier_than_the_same_words_shuffled() -> None:
    common, shuffled = likelihoods("I don\u2019t know what you mean", "mean know you I what don't")
    assert common > shuffled + 10


def test_unknown_words_and_signs_are_left_out() -> None:
    likelihood, known = word_likelihoods(["The cat, sat.", "the cat zzxyq", "zzxyq", "", "?! 12"])
    assert known.tolist()[:2] == [3, 2]
    assert np.isnan(known[2:]).all() and np.isnan(likelihood[2:]).all()
    assert likelihood[1] == pytest.approx(likelihoods("the cat")[0])


def test_without_the_package_there_is_no_value(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    trigram._model.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert np.isnan(word_likelihoods(["the cat"])).all()
        assert "pocketsphinx is not installed" in caplog.text
    finally:
        trigram._model.cache_clear()
