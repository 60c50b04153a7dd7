"""Scorers: found by name, scores in [0, 1] and in order."""

import pickle
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from quark.scorers import SCORERS, ScorerError, check_scorer, load_scorer
from quark.scorers.profanity import ProfanityCheck

TEXTS = ["Have a nice day, my friend.", "You fucking idiot, shut up.", "", " \n", "The sun rises."]


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_loads_under_its_name(name):
    scorer = load_scorer(name)
    assert scorer.name == name
    assert scorer.version


def test_unknown_scorer_names_the_nearest():
    with pytest.raises(ValueError, match=r"no scorer 'profanity'; did you mean 'profanity-check'"):
        load_scorer("profanity")
    with pytest.raises(ScorerError, match="classifiers, functions: vader is a scorer already"):
        check_scorer("vader", ["vader"])
    check_scorer("mine", ["mine"])


def test_scores_are_probabilities_and_tell_insults_from_kindness():
    scores = ProfanityCheck().score([""] * len(TEXTS), TEXTS)
    assert scores.dtype == np.float64
    assert scores.shape == (len(TEXTS),)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores[1] > 0.9 > 0.5 > max(scores[0], scores[4])
    assert scores[2] == scores[3]  # no known word in either


def test_scores_keep_the_order_and_read_the_response_alone():
    scorer = ProfanityCheck()
    together = scorer.score(["You fucking idiot"] * len(TEXTS), TEXTS)
    alone = [scorer.score([""], [text])[0] for text in TEXTS]
    # Equal up to the order in which a sparse product sums its terms.
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_no_texts_give_no_scores():
    assert ProfanityCheck().score([], []).shape == (0,)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 prompts, but 1 responses"):
        ProfanityCheck().score(["a", "b"], ["c"])


def test_vader_tells_praise_from_blame_and_reads_the_prompt_only_where_it_should():
    whole, alone = load_scorer("vader"), load_scorer("vader-continuation")
    prompts, responses = ["A wonderful film"] * 3, [" I loved.", " I hated.", ""]
    by_whole, by_alone = (s.score(prompts, responses) for s in (whole, alone))
    assert by_whole[0] > 0.9 and by_alone[0] > 0.7 > 0.3 > by_alone[1]
    assert by_whole[2] > 0.7 and by_alone[2] == 0.5  # no word, no feeling
    assert (by_whole[:2] != by_alone[:2]).all()
    assert whole.score([], []).shape == (0,)
    with pytest.raises(ValueError, match="1 prompts, but 2 responses"):
        whole.score(["a"], ["b", "c"])


def test_diversity_of_words():
    scorer = load_scorer("diversity")
    found = scorer.score(["x y"] * 3, ["a b c  d\n e", "a b a b a b", "a b c"])
    # two of five 2-grams, two of four 3-grams, two of three 4-grams
    np.testing.assert_allclose(found, [1, 2 / 5 * 2 / 4 * 2 / 3, 0])
    with pytest.raises(ValueError, match="1 prompts, but 2 responses"):
        scorer.score(["a"], ["b", "c"])


class Trap:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("name", ["model.joblib", "vectorizer.joblib"])
def test_a_pickle_that_nobody_knows_is_not_loaded(tmp_path, monkeypatch, name):
    package, marker = tmp_path / "profanity_check", tmp_path / "it ran"
    shutil.copytree(Path(find_spec("profanity_check").origin).parent, package)
    file = package / "data" / name
    file.write_bytes(pickle.dumps(Trap(marker)))
    for module in ("profanity_check", "profanity_check.profanity_check"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    again = r"pip install --force-reinstall --no-deps alt-profanity-check==1\.9\.1"
    with pytest.raises(ScorerError, match=f"{file}: missing, or not the file of .*{again}"):
        load_scorer("profanity-check")
    file.unlink()
    with pytest.raises(ScorerError, match=f"{file}: missing"):
        load_scorer("profanity-check")
    assert not marker.exists()
    pickle.loads(pickle.dumps(Trap(marker)))
    assert marker.exists()  # so the trap works
