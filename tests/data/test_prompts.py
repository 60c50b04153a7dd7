"""Prompts: nothing is lost or used twice, splits are stable, bad lines are named."""

import gzip
import hashlib
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quark.config import Prompts, PromptSource, Split
from quark.core import schemas
from quark.core.files import DamagedError
from quark.data import ResourceError, fetch_prompts
from quark.data import prompts as module
from quark.data.prompt_files import Prompt, halves
from quark.data.prompts import cut, deduplicate, in_order

KIND = [f"The weather on day {day} is fine and" for day in range(12)]
RUDE = [f"You fucking idiot number {day}, shut up and" for day in range(8)]
SPLITS = {"nontoxic": {"prompts": 3, "toxic": False}, "validation": {"prompts": 2}}


def config(tmp_path, *sources, exclude=(), **changed):
    """A prompts section over files made here; each source is (name, text of its file)."""
    described = []
    for name, content in sources:
        file = tmp_path / f"{name}.txt"
        file.write_text(content, encoding="utf-8")
        jsonl = {"format": "jsonl", "text": "text", "toxicity": "toxicity"}
        fields = jsonl if content.startswith("{") else {"format": "lines"}
        described.append({"name": name, "local": str(file), "licence": "none", **fields})
        described[-1]["exclude"] = [line for line in exclude if line in content]
    settings = {"scorer": "profanity-check", "toxic_from": 0.5, "seed": 0, "splits": SPLITS}
    return Prompts.model_validate({"sources": described, **settings, **changed})


def rows(*pairs):
    return "\n".join(json.dumps({"text": text, "toxicity": score}) for text, score in pairs)


def read(out):
    return {f.stem: schemas.read(f, schemas.PROMPTS).to_pylist() for f in out.glob("*.parquet")}


def test_every_prompt_lands_in_one_split(tmp_path):
    published = rows(*((text, 0.9) for text in RUDE[:4]), ("Published as toxic", 0.5))
    sources = (("a", "\n".join(["A heading", *KIND, "", "  ", *RUDE])), ("b", published))
    fetch_prompts("x", config(tmp_path, *sources, exclude=["A heading"]), tmp_path / "out")
    splits = read(tmp_path / "out")
    assert set(splits) == {"train", "nontoxic", "validation"}
    assert (len(splits["nontoxic"]), len(splits["validation"])) == (3, 2)
    assert not any(row["toxic"] for row in splits["nontoxic"])
    everything = [row for split in splits.values() for row in split]
    assert sorted(row["text"] for row in everything) == sorted([*KIND, *RUDE, "Published as toxic"])
    for row in everything:
        assert row["prompt_id"] == hashlib.sha256(row["text"].encode()).hexdigest()[:16]
        assert row["toxic"] == (row["text"] not in KIND)
        known = row["text"] in RUDE[:4] or row["text"] == "Published as toxic"
        assert (row["toxicity"] is not None) == known == (row["source"] == "b")

    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    counts = ("lines", "empty", "excluded", "duplicates", "kept")
    assert [manifest["sources"]["a"][c] for c in counts] == [23, 2, 1, 4, 16]
    assert [manifest["sources"]["b"][c] for c in counts] == [5, 0, 0, 0, 5]
    for split, content in splits.items():
        about = manifest["splits"][split]
        assert about["prompts"] == len(content) == sum(about["sources"].values())
        assert about["toxic"] == sum(row["toxic"] for row in content)
        file = tmp_path / "out" / f"{split}.parquet"
        assert manifest["sha256"][file.name] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert schemas.read(file, schemas.PROMPTS).num_rows == len(content)
    pq.write_table(pq.read_table(file).slice(1), file)
    with pytest.raises(
        DamagedError, match=rf"{file}: damaged .* snakemake --cores all {file.parent} "
    ):
        schemas.read(file, schemas.PROMPTS)


def test_an_excluded_line_must_exist():
    source = {"name": "a", "local": "a.txt", "format": "lines", "licence": "none"}
    (source,) = Prompts.model_validate(
        {"sources": [source | {"exclude": ["heading"]}], "scorer": "x", "toxic_from": 0.5}
        | {"seed": 0, "splits": SPLITS}
    ).sources
    assert module.without("prompts.x", [Prompt("heading", "a"), Prompt("", "a")], [source]) == []
    with pytest.raises(ResourceError, match=r"prompts.x.sources.a.exclude: .* no line 'heading'"):
        module.without("prompts.x", [Prompt("heading", "b")], [source])


def test_duplicates_are_found_by_sense_and_the_published_score_wins():
    composed, apart = "caf\u00e9 au lait", "cafe\u0301  au\tlait"
    first = Prompt(composed, "a")
    scored, later = Prompt(apart, "b", 0.25), Prompt(composed, "c", 0.75)
    other = Prompt("Caf\u00e9 au lait", "a")
    assert deduplicate([first, scored, later, other]) == [scored, other]
    assert deduplicate([first, Prompt(apart, "b")]) == [first]


@given(
    toxic=st.lists(st.booleans(), min_size=8, max_size=30),
    seed=st.integers(0, 2**32),
    shuffle=st.randoms(use_true_random=False),
)
def test_splits_are_disjoint_complete_and_independent_of_the_reading_order(toxic, seed, shuffle):
    prompts = [Prompt(f"prompt {n}", "a") for n in range(len(toxic))]
    is_toxic = {p.id: t for p, t in zip(prompts, toxic, strict=True)}
    splits = {"validation": Split(prompts=2), "test": Split(prompts=3)}
    drawn = cut("prompts.x", in_order(prompts, seed), is_toxic, splits)
    used = [p for split in drawn.values() for p in split]
    assert sorted(p.text for p in used) == sorted(p.text for p in prompts)
    shuffled = shuffle.sample(prompts, len(prompts))
    assert cut("prompts.x", in_order(shuffled, seed), is_toxic, splits) == drawn


def test_order_is_that_of_the_seeded_hash_in_every_process():
    prompts = [Prompt(text, "a") for text in KIND]
    expected = sorted(KIND, key=lambda t: hashlib.sha256(f"7:{t}".encode()).hexdigest())
    assert [p.text for p in in_order(prompts, 7)] == expected
    assert [p.text for p in in_order(prompts, 8)] != expected


def test_same_input_gives_the_same_bytes(tmp_path):
    for name in "ab":
        fetch_prompts("x", config(tmp_path, ("s", "\n".join(KIND))), tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_nested_field_as_in_real_toxicity_prompts(tmp_path):
    lines = (json.dumps({"prompt": {"text": t, "toxicity": None}}) for t in KIND)
    (tmp_path / "rtp.jsonl").write_text("\n".join(lines))
    fields = {"format": "jsonl", "text": "prompt.text", "toxicity": "prompt.toxicity"}
    source = {"name": "rtp", "local": str(tmp_path / "rtp.jsonl"), "licence": "none", **fields}
    settings = {"scorer": "profanity-check", "toxic_from": 0.5, "seed": 0, "splits": SPLITS}
    prompts = Prompts.model_validate({"sources": [source], **settings})
    fetch_prompts("x", prompts, tmp_path / "out")
    found = [row for split in read(tmp_path / "out").values() for row in split]
    assert {row["text"] for row in found} == set(KIND)
    assert all(row["toxicity"] is None for row in found)


def parquet(file, **columns):
    """A Parquet file, and the prompts that read it: one source whose texts all stay in train."""
    pq.write_table(pa.table(columns), file)
    fields = {"format": "parquet", "text": "comment.text", "toxicity": "toxicity"}
    source = {"name": "c", "local": str(file), "licence": "none", **fields}
    settings = {"scorer": "profanity-check", "toxic_from": 0.5, "seed": 0, "splits": {}}
    return Prompts.model_validate({"sources": [source], **settings})


def test_a_parquet_file_as_of_civil_comments(tmp_path):
    comments = [{"text": text, "other": 1} for text in (*KIND, *RUDE)]
    toxicity = pa.array([0.0] * len(KIND) + [0.5] * len(RUDE), pa.float32())
    prompts = parquet(tmp_path / "c.parquet", comment=comments, toxicity=toxicity)
    fetch_prompts("x", prompts, tmp_path / "out")
    found = {row["text"]: row["toxicity"] for row in read(tmp_path / "out")["train"]}
    assert found == dict.fromkeys(KIND, 0.0) | dict.fromkeys(RUDE, 0.5)


def test_a_bad_parquet_file_is_named(tmp_path):
    file = tmp_path / "c.parquet"
    prompts = parquet(file, comment=[{"text": "a"}, {"text": None}], toxicity=[0.0, 0.1])
    with pytest.raises(ResourceError, match=r"c.parquet, row 2: comment.text = None is no text"):
        fetch_prompts("x", prompts, tmp_path / "out")
    prompts = parquet(file, text=["a"], toxicity=[0.0])
    with pytest.raises(ResourceError, match=r"no column 'comment.text', it has text, toxicity"):
        fetch_prompts("x", prompts, tmp_path / "out")
    file.write_text("lines")
    with pytest.raises(ResourceError, match=r"c\.parquet: no Parquet file"):
        fetch_prompts("x", prompts, tmp_path / "out")


def dataset(folder, **changed):
    """A prompts section over a directory that the library `datasets` reads."""
    fields = {"format": "dataset", "text": "prompt.text", "toxicity": "prompt.toxicity"}
    source = {"name": "d", "local": str(folder), "licence": "none", **fields, **changed}
    settings = {"scorer": "profanity-check", "toxic_from": 0.5, "seed": 0, "splits": {}}
    return Prompts.model_validate({"sources": [source], **settings})


def test_a_data_set_is_read_split_by_split(tmp_path, monkeypatch):
    """Of several files, one of them compressed; what comes of it stays in the new directory."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    folder = tmp_path / "set"
    folder.mkdir()
    lines = [
        json.dumps({"prompt": {"text": text, "toxicity": score}, "id": n}) + "\n"
        for n, (text, score) in enumerate([*((t, 0.1) for t in KIND), *((t, 0.9) for t in RUDE)])
    ]
    (folder / "train-0.jsonl").write_text("".join(lines[:5]))
    with gzip.open(folder / "train-1.jsonl.gz", "wt") as file:
        file.write("".join(lines[5:]))
    (folder / "test.jsonl").write_text(lines[0])
    fetch_prompts("x", dataset(folder), tmp_path / "out")
    found = {row["text"]: row["toxicity"] for row in read(tmp_path / "out")["train"]}
    assert found == dict.fromkeys(KIND, 0.1) | dict.fromkeys(RUDE, 0.9)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    files = [each["file"] for each in manifest["sources"]["d"]["files"]]
    assert files == ["set/test.jsonl", "set/train-0.jsonl", "set/train-1.jsonl.gz"]
    fetch_prompts("x", dataset(folder, split="test"), tmp_path / "other")
    assert [row["text"] for row in read(tmp_path / "other")["train"]] == [KIND[0]]


def test_a_data_set_that_cannot_be_read_is_named(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"prompt": {"text": "a", "toxicity": 0.1}}\n')
    for changed, fault in (
        ({"split": "dev"}, "set: the library `datasets` cannot read split 'dev'"),
        ({"text": "texts"}, "set: no column 'texts', it has prompt"),
        ({"text": "prompt.words"}, "set, row 1: no field 'prompt.words'"),
        ({"format": "jsonl"}, "format jsonl reads a file"),
        ({"local": str(folder / "train.jsonl")}, "format dataset reads a directory"),
    ):
        with pytest.raises(ResourceError, match=fault):
            fetch_prompts("x", dataset(folder, **changed), tmp_path / "out")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"text": "a"', "not valid JSON"),
        ('{"txt": "a", "toxicity": 0.1}', "no field 'text'"),
        ('{"text": "a"}', "no field 'toxicity'"),
        ('{"text": 3, "toxicity": 0.1}', "text = 3 is no text"),
        ('{"text": "a", "toxicity": 1.5}', "toxicity = 1.5 is no number from 0 to 1"),
        ('{"text": "a", "toxicity": NaN}', "toxicity = nan is no number from 0 to 1"),
        ('{"text": "a", "toxicity": true}', "toxicity = True is no number from 0 to 1"),
        ('{"text": "\\ud800", "toxicity": 0.1}', "surrogates not allowed"),
        ("[1]", "no field 'text'"),
    ],
)
def test_bad_line_is_named_and_nothing_is_written(line, fault, tmp_path):
    prompts = config(tmp_path, ("bad", rows(("fine", 0.1)) + "\n" + line + "\n"))
    with pytest.raises(ResourceError) as error:
        fetch_prompts("x", prompts, tmp_path / "out" / "x")
    assert "prompts.x.sources.bad: bad.txt, line 2: " in str(error.value)
    assert fault in str(error.value)
    assert not (tmp_path / "out").exists()


def test_line_that_is_not_utf8_is_named(tmp_path):
    prompts = config(tmp_path, ("a", "x"))
    (tmp_path / "a.txt").write_bytes(b"fine\n\xff\xfe\n")
    with pytest.raises(ResourceError, match=r"a\.txt, line 2: not UTF-8"):
        fetch_prompts("x", prompts, tmp_path / "out")


@pytest.mark.parametrize("content", ["", "\n  \n"])
def test_empty_file_is_refused(content, tmp_path):
    with pytest.raises(ResourceError, match=r"prompts\.x\.sources\.a: a\.txt holds no prompt"):
        fetch_prompts("x", config(tmp_path, ("a", content)), tmp_path / "out")


def test_short_split_tells_how_many_there_are(tmp_path):
    prompts = config(tmp_path, ("a", "\n".join(KIND[:2])))
    expected = r"x\.splits\.nontoxic: wants 3 non-toxic prompts, but only 2 are left"
    with pytest.raises(ResourceError, match=expected):
        fetch_prompts("x", prompts, tmp_path / "out")


def test_train_must_not_be_empty(tmp_path):
    prompts = config(tmp_path, ("a", "\n".join(KIND[:5])))
    with pytest.raises(ResourceError, match=r"prompts\.x\.splits: no prompt is left for train"):
        fetch_prompts("x", prompts, tmp_path / "out")


def test_failed_score_is_no_good_score(tmp_path, monkeypatch):
    class Failing:
        name, version = "failing", "0"

        def score(self, prompts, responses):
            return np.full(len(responses), np.nan)

    monkeypatch.setattr(module, "load_scorer", lambda _: Failing())
    with pytest.raises(ResourceError, match=r"failing could not score 12 of 12 prompts"):
        fetch_prompts("x", config(tmp_path, ("a", "\n".join(KIND))), tmp_path / "out")


def test_unknown_scorer_names_key_and_nearest(tmp_path):
    prompts = config(tmp_path, ("a", "x"), scorer="profanity")
    with pytest.raises(ResourceError, match=r"prompts\.x\.scorer: .*did you mean 'profanity-check"):
        fetch_prompts("x", prompts, tmp_path / "out")


def test_prompts_need_no_torch():
    code = "import sys, quark.data.prompts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_halves_by_hand():
    text = "One two three four five six. Seven eight!<br /><br />Nine ten eleven twelve? a b c d e"
    assert halves(text, 2, 3) == ["One two three", "Nine ten", "a b"]
    assert halves(text, 1, 1) == ["Seven"]
    assert halves("", 1, 9) == []


def test_half_sentences_of_a_csv_file(tmp_path):
    file = tmp_path / "reviews.csv"
    file.write_text(
        'text,label\n"I liked it, a lot, yes I did. No.",1\n"Not so ""good"" at all.",0\n'
    )
    source = {"name": "r", "local": str(file), "format": "csv", "text": "text", "licence": "none"}
    settings = {"scorer": "profanity-check", "toxic_from": 0.5, "seed": 0, "splits": {}}
    prompts = Prompts.model_validate({"sources": [{**source, "halves": [2, 9]}], **settings})
    fetch_prompts("x", prompts, tmp_path / "out")
    assert {r["text"] for r in read(tmp_path / "out")["train"]} == {"I liked it, a", "Not so"}
    file.write_bytes(b"text,label\nfine,1\n\xff,0\n")
    with pytest.raises(ResourceError, match=r"reviews.csv, after row \d: .*convert or correct"):
        fetch_prompts("x", prompts, tmp_path / "out2")


def test_short_texts_are_left_out(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("one two\none two three\n\nfour  words  are here\n")
    source = {"name": "t", "local": str(file), "format": "lines", "licence": "none"}
    settings = {"scorer": "profanity-check", "toxic_from": 0.5, "seed": 0, "splits": {}}
    prompts = Prompts.model_validate({"sources": [{**source, "fewest_words": 3}], **settings})
    fetch_prompts("x", prompts, tmp_path / "out")
    texts = {row["text"] for row in read(tmp_path / "out")["train"]}
    assert texts == {"one two three", "four  words  are here"}


def test_a_source_that_a_split_names_is_that_splits_alone(tmp_path):
    published = rows(*((f"Published {i}", 0.1 * i) for i in range(6)), (KIND[0], 0.2))
    named = SPLITS | {"listed": {"prompts": 4, "toxic": False, "source": "b"}}
    prompts = config(tmp_path, ("a", "\n".join(KIND)), ("b", published), splits=named)
    fetch_prompts("x", prompts, tmp_path / "out")
    splits = read(tmp_path / "out")
    assert {row["source"] for row in splits.pop("listed")} == {"b"}
    others = [row for split in splits.values() for row in split]
    # Neither the rest of the list nor the prompt that stands in both files is trained on.
    assert sorted(row["text"] for row in others) == sorted(KIND[1:])
    counts = json.loads((tmp_path / "out/manifest.json").read_text())["sources"]["b"]
    assert (counts["kept"], counts["unused"]) == (7, 3)
    with pytest.raises(ResourceError, match="wants 7 non-toxic prompts of source b, but only 6"):
        named["listed"] = named["listed"] | {"prompts": 7}
        again = config(tmp_path, ("a", "\n".join(KIND)), ("b", published), splits=named)
        fetch_prompts("x", again, tmp_path / "out2")
    with pytest.raises(ValueError, match=r"splits\.listed\.source is 'b', which is no source"):
        config(tmp_path, ("a", "x"), splits=named)


def test_what_is_no_part_of_a_prompt_is_removed(tmp_path):
    file = tmp_path / "tagged.txt"
    file.write_text("[ WP ] You wake up\n[WP] You  wake up\n[EU]\nNot [WP] here\n")
    source = {"name": "t", "local": str(file), "format": "lines", "licence": "none"}
    settings = {"scorer": "profanity-check", "toxic_from": 0.5, "seed": 0, "splits": {}}
    tags = {"remove": r"^\[ ?[A-Z]{2} ?\]\s*"}
    prompts = Prompts.model_validate({"sources": [source | tags], **settings})
    fetch_prompts("x", prompts, tmp_path / "out")
    assert [row["text"] for row in read(tmp_path / "out")["train"]] == [
        "You wake up",
        "Not [WP] here",
    ]
    counts = json.loads((tmp_path / "out/manifest.json").read_text())["sources"]["t"]
    assert (counts["lines"], counts["empty"], counts["duplicates"]) == (4, 1, 1)
    with pytest.raises(ValueError, match=r"remove = '\['"):
        PromptSource.model_validate(source | {"remove": "["})


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"halves": [3, 2]}, "halves are"),
        ({"toxicity": "label"}, "csv has no published toxicity"),
    ],
)
def test_impossible_halves(changed, fault):
    source = {"name": "r", "local": "f", "format": "csv", "text": "text", "licence": "none"}
    with pytest.raises(ValueError, match=fault):
        PromptSource.model_validate(source | changed)
