"""tox-block against a plain loop over words, units and gates, from its package to its scores."""

import hashlib
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_files import hdf5, pickled, weights

from quark.config import Classifier as Settings
from quark.config import load
from quark.core.files import DamagedError, read_json
from quark.data import ResourceError
from quark.data.classifiers import fetch_classifier
from quark.scorers import ScorerError
from quark.scorers import tox_block as module
from quark.scorers.tox_block import ToxBlock
from quark.stages.derive import source
from quark.stages.score import scorer_of
from quark.stages.settings import ScoreSettings

ROOT = Path(__file__).parents[2]
FETCHED = ROOT / "resources/classifiers/tox-block"
TEXTS = ["The good,the BAD; you're", "", "unheard-of", "bad " * 150 + "good", "bad\ngood\tthe"]
VOCABULARY = {"the": 1, "good": 2, "bad": 3, "you're": 4}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that pip takes for the only package index, with a tiny tox-block."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    pickled(tmp_path / "encoder_1.0.pkl", monkeypatch)
    info = "fake-1.0.dist-info"
    with zipfile.ZipFile(folder / "fake-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("fake/lstm_model_1.0.h5", hdf5(weights(5)))
        archive.writestr("fake/history_1.0.pkl", b"not read")
        archive.write(tmp_path / "encoder_1.0.pkl", "fake/encoder_1.0.pkl")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: fake\nVersion: 1.0\n")
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/RECORD", "")
    return folder


def settings(index: Path, member: str = "fake/*_1.0.*", **changed: Any) -> Settings:
    (wheel,) = index.iterdir()
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    reads = {"label": "toxic", "whole": False, "tokens": 100, "alone": True} | changed
    package = {"name": "fake", "version": "1.0", "sha256": sha256, "member": member}
    return Settings.model_validate({"package": package, "licence": "MIT", "reads": reads})


def scorer(index: Path, **changed: Any) -> ToxBlock:
    how, out = settings(index, **changed), index.parent / "fetched"
    fetch_classifier("tox-block", source(how), out)
    made = scorer_of(ScoreSettings(scorer="tox-block", classifier=how.reads), out, None)
    assert isinstance(made, ToxBlock)
    return made


def words(text: str) -> list[int]:
    """Keras' tokenizer, character by character."""
    found, word = [], ""
    for character in text.lower() + " ":
        if character in '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n ':
            found += [VOCABULARY[word]] if word in VOCABULARY else []
            word = ""
        else:
            word += character
    kept = found[-100:]
    return [0] * (100 - len(kept)) + kept


def plain(text: str, output: int = 0) -> float:
    """The probability of one output, a number at a time."""
    model = weights(5)["model_weights"]

    def layer(of: Any, inputs: Any, unit: int) -> float:
        kernel, bias = of["kernel:0"].astype(float), of["bias:0"].astype(float)
        return float(bias[unit] + sum(x * kernel[i, unit] for i, x in enumerate(inputs)))

    def gate(x: float) -> float:
        return max(0.0, min(1.0, x / 5 + 0.5))

    pooled = []
    for way, order in (("forward", range(100)), ("backward", range(99, -1, -1))):
        lstm = model["bidirectional"]["bidirectional"][f"{way}_lstm"]
        again = lstm["recurrent_kernel:0"].astype(float)
        h, c, highest = [0.0, 0.0], [0.0, 0.0], [-math.inf, -math.inf]
        for place in order:
            vector = model["embedding"]["embedding"]["embeddings:0"][words(text)[place]]
            z = [
                layer(lstm, vector.astype(float), k) + sum(h[j] * again[j, k] for j in range(2))
                for k in range(8)  # input, forget, cell, output: two units each
            ]
            c = [gate(z[2 + u]) * c[u] + gate(z[u]) * math.tanh(z[4 + u]) for u in range(2)]
            h = [gate(z[6 + u]) * math.tanh(c[u]) for u in range(2)]
            highest = [max(pair) for pair in zip(highest, h, strict=True)]
        pooled += highest
    hidden = [max(0.0, layer(model["dense"]["dense"], pooled, unit)) for unit in range(4)]
    return 1 / (1 + math.exp(-layer(model["dense_1"]["dense_1"], hidden, output)))


def test_against_a_plain_loop(index: Path) -> None:
    found = scorer(index).score(["ignored bad"] * len(TEXTS), TEXTS)
    wanted = [abs(plain(text) - 0.002116) / (0.999858 - 0.002116) for text in TEXTS]
    np.testing.assert_allclose(found, wanted, atol=1e-9)  # to so many digits they are rounded
    assert len(set(found)) == 4 and found[1] == found[2]  # no known word


def test_another_label_and_the_prompt(index: Path) -> None:
    found = scorer(index, label="insult", whole=True).score(["the ", ""], ["bad", "the bad"])
    wanted = min(1, abs(plain("the bad", 4) - 0.000373) / (0.986303 - 0.000373))
    np.testing.assert_allclose(found, [wanted] * 2, atol=1e-9)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_no_score_depends_on_the_others(
    index: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, texts = scorer(index), TEXTS * 3
    together = made.score([""] * len(texts), texts)
    monkeypatch.setattr(module, "BATCH", batch)
    assert made.score([""] * len(texts), texts).tolist() == together.tolist()
    back = made.score([""] * len(texts), texts[::-1])[::-1]
    assert back.tolist() == together.tolist()


def test_words(index: Path) -> None:
    made = scorer(index)
    for text in (*TEXTS, "THE  good\r bad", "rare the"):
        assert made.ids(text) == words(text)
    assert made.ids("x good.")[-2:] == [0, 2]
    assert made.ids("bad " + "good " * 100)[0] == 2  # the last hundred stay


def test_what_is_written(index: Path) -> None:
    made = scorer(index)
    assert (made.name, made.version) == ("tox-block", "1.0")
    manifest = read_json(index.parent / "fetched/manifest.json")
    assert manifest["licence"] == "MIT" and manifest["labels"][0] == "toxic"
    assert read_json(index.parent / "fetched/vocabulary.json") == VOCABULARY


def test_damaged_weights_are_named(index: Path) -> None:
    how, file = settings(index).reads, index.parent / "fetched/model.safetensors"
    scorer(index)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DamagedError, match=f"{file}: damaged .* --forcerun {file.parent}"):
        ToxBlock("tox-block", how, file.parent)


def test_no_texts_and_lists_of_unequal_length(index: Path) -> None:
    made = scorer(index)
    assert made.score([], []).shape == (0,)
    with pytest.raises(ValueError, match="1 prompts, but 2 responses"):
        made.score(["a"], ["b", "c"])


def test_what_it_cannot_do_is_named(index: Path) -> None:
    with pytest.raises(ScorerError, match=r"label is 'bad', the model's are 'toxic', 'severe"):
        scorer(index, label="bad")
    for changed in ({"tokens": 99}, {"alone": False}):
        with pytest.raises(ScorerError, match="write tokens: 100, alone: true"):
            scorer(index, **changed)
    with pytest.raises(ResourceError, match=r"one \.h5 file and one encoder_\*\.pkl are needed"):
        fetch_classifier("x", source(settings(index, "fake/history*")), index.parent / "x")
    assert not (index.parent / "x").exists()


@pytest.mark.skipif(not FETCHED.exists(), reason="resources/classifiers/tox-block is not fetched")
def test_published_examples() -> None:
    """From the package's description, where they were computed in float32."""
    how = load([ROOT / "config/config.yaml"]).classifiers["tox-block"].reads
    examples = {
        "Good morning my friend, I hope you're having a fantastic day!": 0.05347811430692673,
        "I will kill you, you fucking idiot!": 0.9998679757118225,
        "I do strongly disagree with the fascist views of this joke that calls itself a political "
        "party.": 0.026190076023340225,
    }
    found = ToxBlock("tox-block", how, FETCHED).score([""] * 3, list(examples))
    np.testing.assert_allclose(found, list(examples.values()), atol=1e-6)
