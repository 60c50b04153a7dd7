"""Model directories that want to run code, and weights that are not as they were written."""

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    dynamic_module_utils,
)

from quark.config import Classifier as ClassifierSource
from quark.config import Mauve, ModelSource, RandomModel
from quark.core import files, schemas
from quark.core.files import DamagedError
from quark.data import ResourceError, fetch_model
from quark.data.classifiers import fetch_classifier
from quark.data.models import _byte_tokenizer
from quark.models.lm import ModelError, load_model, load_tokenizer
from quark.models.weights import CustomCodeError
from quark.scorers.classifier import Classifier
from quark.stages.judge import judge_stage
from quark.stages.mauve import mauve_stage
from quark.stages.settings import JudgeSettings, MauveSettings

Load = Callable[[Path], Any]
LOADERS: dict[str, Load] = {
    "policy": lambda folder: load_model(folder, "fp32"),
    "classifier": lambda folder: Classifier("c", reads(folder).reads, folder),
}
SOURCE = Path(__file__).parents[2] / "quark"


def reads(folder: Path) -> ClassifierSource:
    how = {"label": "LABEL_1", "whole": True, "tokens": 32}
    return ClassifierSource.model_validate({"local": str(folder), "licence": "none", "reads": how})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and a classifier, as they are fetched; the classifier as it was before, too."""
    folder = tmp_path_factory.mktemp("made")
    random = RandomModel(architecture="gpt2", layers=1, width=8, heads=2, context=32, seed=0)
    fetch_model("m", ModelSource(random=random, licence="none"), folder / "policy")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=257, intermediate_size=32, max_position_embeddings=64, **sizes)
    BertForSequenceClassification(config).save_pretrained(folder / "theirs")
    _byte_tokenizer(64).save_pretrained(folder / "theirs")
    fetch_classifier("c", reads(folder / "theirs"), folder / "classifier")
    return folder


@pytest.fixture(params=list(LOADERS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(made: Path, tmp_path: Path, kind: str) -> Path:
    """A copy of a directory, to be spoilt; it was never loaded."""
    return Path(shutil.copytree(made / kind, tmp_path / kind))


# --------------------------------------------------------------------------------------- weights
def flip(content: bytes) -> bytes:
    """The last bit is another: a weight has another value."""
    return content[:-1] + bytes([content[-1] ^ 1])


SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "flipped": flip,
    "truncated": lambda content: content[:-100],
    "header": lambda content: content[:8] + b"?" + content[9:],
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("loaded_before", [False, True])
def test_damage_is_named_with_its_remedy(
    folder: Path, kind: str, how: str, loaded_before: bool
) -> None:
    if loaded_before:
        LOADERS[kind](folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(SPOILT[how](weights.read_bytes()))
    for _ in range(2):  # it is not forgotten
        with pytest.raises(
            DamagedError, match=f"{weights}: damaged .*--cores all {folder} --forcerun {folder}$"
        ):
            LOADERS[kind](folder)


def test_a_users_model_has_no_manifest(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made / "policy", tmp_path / "mine"))
    (folder / "manifest.json").unlink()
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(flip(whole))
    load_model(folder, "fp32")  # there is nothing to compare with
    assert not (folder / ".model.safetensors.verified").exists()
    for how in ("truncated", "header", "empty"):
        weights.write_bytes(SPOILT[how](whole))
        with pytest.raises(DamagedError, match=rf"{weights}: damaged \(.*copy or fetch the direc"):
            load_model(folder, "fp32")


@pytest.mark.parametrize("how", ["truncated", "header", "empty"])
def test_a_damaged_source_is_not_fetched(made: Path, tmp_path: Path, how: str) -> None:
    theirs = {"policy": made / "policy", "classifier": made / "theirs"}
    for kind, source in theirs.items():
        folder = Path(shutil.copytree(source, tmp_path / kind))
        (folder / "manifest.json").unlink(missing_ok=True)
        weights = folder / "model.safetensors"
        weights.write_bytes(SPOILT[how](weights.read_bytes()))
        with pytest.raises(ResourceError, match=f"{kind} cannot be loaded: {weights}: damaged"):
            fetch(kind, folder, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def fetch(kind: str, folder: Path, out: Path) -> None:
    if kind == "policy":
        fetch_model("m", ModelSource(local=str(folder), licence="none"), out)
    else:
        fetch_classifier("c", reads(folder), out)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose checksums are computed."""
    seen: list[Path] = []
    sha256 = files.sha256
    monkeypatch.setattr(files, "sha256", lambda file: seen.append(file) or sha256(file))
    return seen


def test_weights_are_read_again_only_after_a_change(
    folder: Path, kind: str, hashed: list[Path]
) -> None:
    weights = folder / "model.safetensors"
    LOADERS[kind](folder)
    LOADERS[kind](folder)
    assert hashed == [weights]
    weights.touch()
    LOADERS[kind](folder)
    LOADERS[kind](folder)
    assert hashed == [weights] * 2
    shutil.copy2(weights, folder / "copy")  # of the same size and time
    (folder / "copy").replace(weights)
    LOADERS[kind](folder)
    assert hashed == [weights] * 3
    (folder / ".model.safetensors.verified").write_bytes(b"\xff")
    LOADERS[kind](folder)
    assert hashed == [weights] * 4


def test_another_manifest_counts_at_once(folder: Path, kind: str) -> None:
    LOADERS[kind](folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "sha256": "0" * 64}))
    with pytest.raises(DamagedError, match=r"model\.safetensors: damaged or changed"):
        LOADERS[kind](folder)


def test_a_folder_that_cannot_be_written(
    folder: Path, kind: str, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files.tempfile, "mkdtemp", refuse)  # root may write everywhere
    before = sorted(folder.iterdir())
    LOADERS[kind](folder)
    LOADERS[kind](folder)
    assert len(hashed) == 2 and sorted(folder.iterdir()) == before


# ------------------------------------------------------------------------------------------ code
CODE = """
from pathlib import Path
from transformers import {base}, {config}, PreTrainedTokenizerFast

Path({marker!r}).touch()
Tokenizer = PreTrainedTokenizerFast


class Config({config}):
    pass


class Model({base}):
    config_class = Config
"""
BASES = {
    "policy": ("GPT2LMHeadModel", "GPT2Config", "AutoModelForCausalLM"),
    "classifier": (
        "BertForSequenceClassification",
        "BertConfig",
        "AutoModelForSequenceClassification",
    ),
}


def spike(folder: Path, kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a directory ask for code; return the file that this code would leave."""
    marker = folder.parent / "it ran"
    base, config, auto = BASES[kind]
    text = CODE.format(base=base, config=config, marker=str(marker))
    (folder / "theirs.py").write_text(text)
    if name == "config.json":
        asked: dict[str, Any] = {"AutoConfig": "theirs.Config", auto: "theirs.Model"}
    else:
        asked = {"AutoTokenizer": [None, "theirs.Tokenizer"]}
    content = json.loads((folder / name).read_text())
    # With a type that transformers does not know, it takes the code or nothing.
    kinds = {"model_type": "theirs"} if name == "config.json" else {"tokenizer_class": "Theirs"}
    (folder / name).write_text(json.dumps(content | kinds | {"auto_map": asked}))
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(folder.parent / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # who is asked says yes
    return marker


NAMES = ["config.json", "tokenizer_config.json"]


@pytest.mark.parametrize("name", NAMES)
def test_no_code_of_a_directory_runs(
    folder: Path, kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = spike(folder, kind, name, monkeypatch)
    asks = f"{folder}: {name} has `auto_map`"
    with pytest.raises(CustomCodeError, match=asks):
        LOADERS[kind](folder)
    with pytest.raises(CustomCodeError, match=asks):
        load_tokenizer(folder)
    with pytest.raises(ResourceError, match=asks):
        fetch(kind, folder, folder.parent / "out")
    assert not marker.exists() and not (folder.parent / "out").exists()


def test_the_code_would_run_where_it_is_trusted(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(made / "policy", tmp_path / "model"))
    marker = spike(folder, "policy", "config.json", monkeypatch)
    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    assert marker.exists()  # so the tests above can fail


@pytest.mark.parametrize("name", NAMES)
def test_no_code_of_a_judge_or_of_mauves_features_runs(
    made: Path,
    tmp_path: Path,
    samples: Callable[[list[str]], Path],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, model = Path(shutil.copytree(made / "policy", tmp_path / "other")), made / "policy"
    marker = spike(folder, "policy", name, monkeypatch)
    texts = samples(["one", "two"])
    judge = JudgeSettings(version=1, precision="fp32")
    with pytest.raises(CustomCodeError, match="auto_map"):
        judge_stage(judge, texts, model, folder, tmp_path / "l.parquet", 4000)
    real = {"prompt_id": ["p"], "prompt_ids": [[1]], "text_ids": [[65, 66]]}
    real |= {"predicted": [[1, 1]], "nll": [0.0]}
    schemas.write(tmp_path / "p.parquet", schemas.PREDICTIONS, real)
    how = Mauve(model="m", tokens=4, buckets=None, scaling=5, seed=25)
    mauve = MauveSettings(version=1, mauve=how, precision="fp32")
    with pytest.raises(CustomCodeError, match="auto_map"):
        mauve_stage(
            mauve, texts, tmp_path / "p.parquet", model, folder, tmp_path / "mauve.json", 4000
        )
    assert not marker.exists()


def test_a_model_that_transformers_does_not_know_is_named(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made / "policy", tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "theirs"}))
    with pytest.raises(ModelError, match=f"{folder}: cannot be loaded: .*theirs"):
        load_model(folder, "fp32")


def test_every_load_forbids_code() -> None:
    calls = 0
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".from_pretrained"):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("trust_remote_code") == "False", f"{file}:{node.lineno}"
                calls += 1
    assert calls > 5


def test_pickled_weights_are_not_read(folder: Path, kind: str) -> None:
    state = {"weight": torch.zeros(1)}
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises((ModelError, OSError), match="safetensors"):
        LOADERS[kind](folder)
