"""The cache of scores: nothing is asked twice, and many processes share one file."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from quark.scorers import ScorerError, why
from quark.scorers.cache import Cached, ScoreCache, key


class Counting:
    """Scores a text by its length; fails on an empty one; remembers what it was asked."""

    name, version = "counting", "1"

    def __init__(self):
        self.asked = []

    def score(self, prompts, responses):
        self.asked.append(list(responses))
        return np.array([len(text) / 10 or np.nan for text in responses])


@pytest.fixture
def scorer():
    return Counting()


def cached(scorer, tmp_path, chunk=2):
    return Cached(scorer, ScoreCache(tmp_path / "deep" / "scores.sqlite"), chunk)


def test_each_text_is_asked_for_once(scorer, tmp_path):
    texts = ["a", "bb", "a", "ccc", "bb"]
    first = cached(scorer, tmp_path).score([""] * 5, texts)
    again = cached(scorer, tmp_path).score([""] * 5, texts)  # as another process would
    assert first.tolist() == again.tolist() == [0.1, 0.2, 0.1, 0.3, 0.2]
    assert scorer.asked == [["a", "bb"], ["ccc"]]


def test_another_prompt_or_version_is_another_text(scorer, tmp_path):
    cached(scorer, tmp_path).score(["x"], ["a"])
    cached(scorer, tmp_path).score(["y"], ["a"])
    scorer.version = "2"
    cached(scorer, tmp_path).score(["x"], ["a"])
    assert len(scorer.asked) == 3
    assert key("s", "1", "ab", "c") != key("s", "1", "a", "bc")


def test_a_prompt_that_is_not_read_asks_for_nothing_again(scorer, tmp_path):
    scorer.reads_prompts = False
    found = [cached(scorer, tmp_path).score(prompts, ["a", "a"]) for prompts in ("xy", "zz")]
    assert np.array(found).tolist() == [[0.1, 0.1]] * 2
    assert scorer.asked == [["a"]]


def test_failures_are_asked_for_again(scorer, tmp_path):
    for _ in range(2):
        found = cached(scorer, tmp_path).score(["", ""], ["", "a"])
        assert np.isnan(found[0]) and found[1] == 0.1
    assert scorer.asked == [["", "a"], [""]]
    assert why(cached(scorer, tmp_path), "", "") == "counting gave no score"


def test_what_was_scored_before_a_crash_is_kept(scorer, tmp_path):
    def fall(prompts, responses):
        if "ccc" in responses:
            raise RuntimeError("killed")
        return Counting.score(scorer, prompts, responses)

    scorer.score = fall
    with pytest.raises(RuntimeError):
        cached(scorer, tmp_path).score([""] * 4, ["a", "bb", "ccc", "dd"])
    del scorer.score
    cached(scorer, tmp_path).score([""] * 4, ["a", "bb", "ccc", "dd"])
    assert scorer.asked == [["a", "bb"], ["ccc", "dd"]]


def test_nothing_asked_of_nobody(scorer, tmp_path):
    assert cached(scorer, tmp_path).score([], []).shape == (0,)
    assert scorer.asked == []
    with pytest.raises(ValueError):
        cached(scorer, tmp_path).score(["a"], [])


def test_a_clock_gives_each_its_turn(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1000.0)
    one, other = (ScoreCache(tmp_path / "scores.sqlite") for _ in range(2))
    waits = [cache.turn("service", 10) for cache in (one, other, one, other)]
    assert waits == pytest.approx([0.0, 0.1, 0.2, 0.3], abs=1e-9)  # seconds since 1970 round
    assert one.turn("another", 10) == 0.0
    monkeypatch.setattr("time.time", lambda: 1001.0)
    assert one.turn("service", 10) == 0.0  # a turn that nobody took is not saved up


WRITE = """
import sys
from pathlib import Path
from quark.scorers.cache import ScoreCache
cache = ScoreCache(Path(sys.argv[1]))
for i in range(100):
    cache.keep({f"{sys.argv[2]}/{i}": i / 100, "shared": 0.5})
"""


def test_processes_write_side_by_side(tmp_path):
    file = tmp_path / "scores.sqlite"

    def write(name):
        subprocess.run([sys.executable, "-c", WRITE, str(file), name], check=True)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(write, "abc"))
    wanted = {f"{name}/{i}": i / 100 for name in "abc" for i in range(100)} | {"shared": 0.5}
    assert ScoreCache(file).find(wanted) == wanted


def test_another_file_is_not_written_over(tmp_path):
    file = tmp_path / "scores.sqlite"
    file.write_text("my thesis " * 100)
    with pytest.raises(ScorerError, match=r"scores\.sqlite: .*if it is no cache of scores, move"):
        ScoreCache(file)
    assert file.read_text() == "my thesis " * 100
