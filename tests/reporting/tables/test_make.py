import csv
import json
from pathlib import Path
from typing import Any

import pytest
from evaluations import PUBLISHED_CSV, SCHEMA, SETTING, evaluation, four

from quark.core import schemas
from quark.core.schemas import TableError
from quark.reporting.evaluation import prompt_schema
from quark.reporting.tables import gather, make_table
from quark.reporting.tables.columns import COSTS, DIFFERENCE
from quark.tasks import TASKS

PUBLISHED = TASKS["toxicity"].published.metrics


def _table(root: Path) -> list[dict[str, str]]:
    make_table(four(root), PUBLISHED_CSV, root / "toxicity.csv")
    with (root / "toxicity.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_in_the_order_given(tmp_path: Path) -> None:
    rows = [(row["split"], row["method"], row["n_seeds"]) for row in _table(tmp_path)]
    assert rows == [
        ("nontoxic", "quark", "2"),
        ("nontoxic", "base", "2"),
        ("challenging", "base", "1"),
    ]


def test_measured_by_hand(tmp_path: Path) -> None:
    """All numbers are sums of powers of two, hence exact.

    Of two prompts, a resample is both (half of the time) or one of them twice (a quarter each), and
    so are the seeds: the ends of the interval are those of single prompts of single seeds.
    """
    quark, base, challenging = _table(tmp_path)
    want = {
        "avg_max_toxicity": 0.5,  # prompts .375 and .625
        "avg_max_toxicity_low": 0.25,
        "avg_max_toxicity_high": 0.75,
        "toxicity_prob": 0.25,  # q is toxic for one seed of two
        "output_ppl": 14 / 3,  # 2 4 8, twice
        "output_ppl_low": 3.0,
        "output_ppl_high": 8.0,
        "output_ppl_median": 4.0,
        "output_ppl_exp_mean_nll": 1.0,
        "dist1": 0.75,
        "dist2": 0.5,
        "dist2_low": 0.25,
        "dist2_high": 0.75,
        "dist3": 0.25,
        "n_prompts": 2,
        "n_generations": 8,
        "n_unscored": 0,
        "n_empty": 2,
        "scorer_calls_per_seed": 15.0,
    }
    assert {key: float(quark[key]) for key in want} == want
    # Wilson, z = 1.96: (.25 + z^2 / 4 -+ z sqrt(.25 * .75 / 2 + z^2 / 16)) / (1 + z^2 / 2)
    ends = [float(quark[f"toxicity_prob_{end}"]) for end in ("low", "high")]
    assert ends == pytest.approx([0.0267, 0.8021], abs=5e-5)  # the digits given
    # seeds .375 and .625: deviation .25 / sqrt 2, rounded once
    assert float(quark["avg_max_toxicity_seed_std"]) == pytest.approx(0.25 / 2**0.5, rel=1e-15)
    # base: p has a score from seed 2 only, .25; q has .75 and 1
    assert float(base["avg_max_toxicity"]) == (0.25 + 0.875) / 2
    assert (base["n_unscored"], base["n_prompts_unscored"]) == ("2", "0")
    assert float(base["output_ppl"]) == (2 + 4 + 8 + 16) / 4  # pooled, not a mean of means
    # both seeds have perplexities 2 4 8; base's second seed has 16 alone, its first 2 4 8
    assert (quark["output_ppl_seed_std"], quark["dist2_seed_std"]) == ("0.0", "0.0")
    spread = (16 - 14 / 3) / 2**0.5
    assert float(base["output_ppl_seed_std"]) == pytest.approx(spread, rel=1e-15)
    assert challenging["avg_max_toxicity_seed_std"] == challenging["output_ppl_seed_std"] == ""
    assert [challenging[f"output_ppl{end}"] for end in ("", "_low", "_high", "_median")] == [""] * 4


def test_differences_to_quark_by_hand(tmp_path: Path) -> None:
    """Of base: seed 1 has q alone, +.25; seed 2 p -.25 and q +.25. Challenging has no quark."""
    quark, base, challenging = _table(tmp_path)
    assert [row["compared_with"] for row in (quark, base, challenging)] == ["", "quark", ""]
    assert [quark[f"avg_max_toxicity{end}"] for end in DIFFERENCE] == ["", "", ""]
    assert [float(base[f"avg_max_toxicity{end}"]) for end in DIFFERENCE] == [0, -0.25, 0.25]
    # pooled perplexities: 2 4 8 16 less 2 4 8 2 4 8
    assert float(base["output_ppl_difference"]) == pytest.approx(7.5 - 14 / 3, rel=1e-15)


def test_rows_are_compared_with_the_guided_quark_where_there_is_one(tmp_path: Path) -> None:
    folders = [
        evaluation(tmp_path, "nontoxic", method, 1, (value, value))
        for method, value in (("base", 0.75), ("quark", 0.5), ("quark_guided", 0.25))
    ]
    folders.append(evaluation(tmp_path, "nontoxic", "ppo", 2, (0.5, 0.5)))
    make_table(folders, PUBLISHED_CSV, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["compared_with"] for row in rows] == [*["quark_guided"] * 2, "", ""]
    assert [row["avg_max_toxicity_difference"] for row in rows] == ["0.5", "0.25", "", ""]


def test_published_stays_apart(tmp_path: Path) -> None:
    quark, base, challenging = _table(tmp_path)
    assert [quark[f"published_{name}"] for name in ("method", *PUBLISHED)] == [
        *("Quark", "0.196", "0.035", "12.47", "0.80", "0.84")
    ]
    assert quark["published_confidence"] == (
        "avg_max_toxicity: recalled; toxicity_prob: recalled; output_ppl: read; "
        "dist2: recalled; dist3: recalled"
    )
    assert (base["published_method"], base["published_output_ppl"]) == ("GPT2", "11.31")
    assert "CONFLICT" in base["published_source"]
    assert not any(value for key, value in challenging.items() if key.startswith("published_"))


def test_other_published_tables_are_not_mixed_in(tmp_path: Path) -> None:
    folder = evaluation(tmp_path, "nontoxic", "quark", 1, (0.25, 0.5))
    both = tmp_path / "both.csv"
    other = "toxicity,elsewhere,in_domain_RTP,detoxify,Quark,dist2,0.11,no paper,read\n"
    both.write_text(PUBLISHED_CSV.read_text() + other)
    for file, out in ((PUBLISHED_CSV, tmp_path / "a.csv"), (both, tmp_path / "b.csv")):
        make_table([folder], file, out)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_same_bytes_again_and_nothing_else_left(tmp_path: Path) -> None:
    made = {}
    for name in ("one", "two"):
        _table(tmp_path / name)
        files = sorted(file for file in (tmp_path / name).iterdir() if file.is_file())
        made[name] = {file.name: file.read_bytes() for file in files}
    assert made["one"] == made["two"]
    assert list(made["one"]) == ["toxicity.csv", "toxicity.md", "toxicity.tex"]


def test_markdown_and_latex(tmp_path: Path) -> None:
    _table(tmp_path)
    markdown = (tmp_path / "toxicity.md").read_text()
    assert (
        "| nontoxic | quark | 0.500 [0.250, 0.750] ± 0.177 | 0.250 [0.027, 0.802] ± 0.354 "
        "| 4.67 [3.00, 8.00] ± 0.00 | 4.00 | 1.00 | 0.750 | 0.500 [0.250, 0.750] ± 0.000 "
        "| 0.250 |\n"
    ) in markdown
    assert "## Measured, with 95 % intervals over prompts and seeds, and ± the standard" in markdown
    assert (
        "| challenging | base | 0.750 [0.500, 1.000] | 0.500 [0.095, 0.905] | - | - |" in markdown
    )
    assert (
        "## What else changes\n\n| split | method | words | names a group | refuses |" in markdown
    )
    assert "| challenging | base | 7.0 [6.0, 8.0] | 0.250 [0.000, 0.500] | 0.000 [" in markdown
    assert "## Difference to quark on the same prompts, with 95 % intervals" in markdown
    assert "| nontoxic | base | +0.000 [-0.250, +0.250] |" in markdown
    assert "| nontoxic | quark | Quark | 0.196 | 0.035 | 12.47 | 0.80 | 0.84 |\n" in markdown
    assert "- judge: gpt2_xl & co\n" in markdown
    assert "- published nontoxic, Quark: output_ppl: secondary: read in public study" in markdown
    latex = (tmp_path / "toxicity.tex").read_text()
    for name in ("\\begin{tabular}", "\\toprule", "\\midrule", "\\bottomrule", "\\end{tabular}"):
        assert latex.count(name) == 5
    assert "nontoxic & quark & 0.500 [0.250, 0.750] $\\pm$ 0.177 & " in latex


def test_a_note_says_what_the_prompts_of_a_split_are(tmp_path: Path) -> None:
    folders = [
        evaluation(tmp_path, "provoking", "base", 1, (0.25, 0.5), note="by a list"),
        evaluation(tmp_path, "challenging", "base", 1, (0.25, 0.5)),
    ]
    make_table(folders, PUBLISHED_CSV, tmp_path / "t.csv")
    assert "\n\n## Notes\n\n- provoking: by a list\n- model:" in (tmp_path / "t.md").read_text()


def test_passes_stand_beside_the_method(tmp_path: Path) -> None:
    folders = [
        evaluation(tmp_path, "nontoxic", "base", 1, (0.25, 0.5), passes=1),
        evaluation(tmp_path, "nontoxic", "dexperts", 1, (0.25, 0.5), passes=3),
    ]
    make_table(folders, PUBLISHED_CSV, tmp_path / "t.csv")
    markdown = (tmp_path / "t.md").read_text()
    assert "| split | method | passes | avg. max. toxicity |" in markdown
    assert "| nontoxic | dexperts | 3 | 0.375 [" in markdown


def test_the_second_scorer_has_columns_of_its_own(tmp_path: Path) -> None:
    second: dict[str, Any] = {"second": [0.25, 0.75], "any_second": [0.0, 1.0]}
    folder = evaluation(tmp_path, "nontoxic", "quark", 1, (0.25, 0.5), **second)
    make_table([folder], PUBLISHED_CSV, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    for name in ("avg_max_toxicity_second", "toxicity_prob_second"):
        assert row[name] == "0.5"
        assert float(row[f"{name}_low"]) < 0.5 < float(row[f"{name}_high"])
    markdown = (tmp_path / "t.md").read_text()
    assert "| avg. max. toxicity, second | output ppl |" in markdown
    assert "| 0.500 [0.250, 0.750] |" in markdown
    assert "toxicity prob., second" not in markdown, "it stands in the CSV alone"
    _table(tmp_path)
    assert "avg. max. toxicity, second |" not in (tmp_path / "toxicity.md").read_text()


def test_latex_escapes(tmp_path: Path) -> None:
    folder = evaluation(tmp_path, "a_b", "x&y", 1, (0.25, 0.5))
    make_table([folder], PUBLISHED_CSV, tmp_path / "t.csv")
    assert "\na\\_b & x\\&y & 0.375 [" in (tmp_path / "t.tex").read_text()
    assert "None of these rows has a counterpart." in (tmp_path / "t.md").read_text()


def test_published_file_is_whole() -> None:
    with PUBLISHED_CSV.open(newline="") as file:
        rows = list(csv.DictReader(file))
    keys = {(row["split"], row["method"], row["metric"]) for row in rows}
    methods = {"GPT2", "PPLM", "GeDi", "DExperts", "DAPT", "PPO", "Quark"}
    splits = {"in_domain_RTP", "out_of_domain_WritingPrompts"}
    assert keys == {(s, m, metric) for s in splits for m in methods for metric in PUBLISHED}
    assert len(rows) == len(keys)
    assert all(float(row["value"]) > 0 and row["source"] for row in rows)
    assert {row["confidence"] for row in rows} == {"read", "recalled"}
    assert all("recalled" in r["source"] for r in rows if r["confidence"] == "recalled")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 1}, "the same evaluation as"),
        (
            {"precision": "bf16"},
            r"settings\.json and .*/b/.*settings\.json: precision is same and bf16",
        ),
        ({"judge": "gpt2"}, "judge is 'gpt2_xl & co' and 'gpt2'"),
        ({"extra": 1}, "extra is None and 1"),
        ({"task": "sentiment"}, r"task is 'sentiment', there are toxicity"),
        ({"ids": ["p", "z"]}, r"only one has prompt q \(2 such prompts\)"),
    ],
)
def test_refuses_runs_that_do_not_fit(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    first = evaluation(tmp_path, "nontoxic", "quark", 1, (0.25, 0.5))
    changed = {"seed": 2} | other
    seed = changed.pop("seed")
    second = evaluation(tmp_path / "b", "nontoxic", "quark", seed, (0.25, 0.5), **changed)
    with pytest.raises(TableError, match=message):
        make_table([first, second], PUBLISHED_CSV, tmp_path / "t.csv")
    assert not list(tmp_path.glob("t.*"))


def test_a_method_may_be_limited_to_some_prompts(tmp_path: Path) -> None:
    few = evaluation(tmp_path, "nontoxic", "pplm", 1, (0.25, 0.5), prompts=2)
    more = {"ids": ["p", "q", "r"]}
    folder = tmp_path / "toxicity/base/seed-1/evaluation/nontoxic/nucleus"
    base = evaluation(tmp_path, "nontoxic", "base", 1, (0.25, 0.5), prompts=None)
    frame = schemas.read(base / "prompts.parquet", SCHEMA).to_pydict()
    wider = {name: [*values, values[-1]] for name, values in frame.items()} | {
        "prompt_id": more["ids"]
    }
    schemas.write(folder / "prompts.parquet", SCHEMA, wider)
    make_table([few, base], PUBLISHED_CSV, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        assert [row["n_prompts"] for row in csv.DictReader(file)] == ["2", "3"]
    short = evaluation(tmp_path / "b", "nontoxic", "pplm", 1, (0.25, 0.5), prompts=3)
    with pytest.raises(TableError, match="only one has prompt r"):
        make_table([short, base], PUBLISHED_CSV, tmp_path / "t.csv")


def test_refuses_incomplete_input(tmp_path: Path) -> None:
    folder = evaluation(tmp_path, "nontoxic", "quark", 1, (0.25, 0.5))
    out = tmp_path / "t.csv"
    with pytest.raises(TableError, match="these evaluations are of none"):
        make_table([], PUBLISHED_CSV, out)
    with pytest.raises(TableError, match=r"none\.csv: no such file"):
        make_table([folder], tmp_path / "none.csv", out)
    lines = PUBLISHED_CSV.read_text().splitlines(keepends=True)
    cut = tmp_path / "cut.csv"
    cut.write_text("".join(line for line in lines if ",Quark,dist3," not in line))
    with pytest.raises(
        TableError, match=r"cut\.csv: .*no cell .*'in_domain_RTP', 'Quark', 'dist3'"
    ):
        make_table([folder], cut, out)
    cut.write_text(lines[0].replace("confidence", "trust") + lines[1])
    with pytest.raises(TableError, match=r"cut\.csv: no column confidence"):
        make_table([folder], cut, out)
    settings = json.loads((folder / "settings.json").read_text())
    del settings["top_k"]
    (folder / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(TableError, match=r"settings\.json: no key top_k"):
        make_table([folder], PUBLISHED_CSV, out)
    (folder / "settings.json").unlink()
    with pytest.raises(TableError, match=r"settings\.json: no such file"):
        make_table([folder], PUBLISHED_CSV, out)


def test_tables_gathered_into_one(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("method,a\nx,1.50\ny,\n")
    (tmp_path / "two.csv").write_text("method,b\nz,2\n")
    gather([tmp_path / "one.csv", tmp_path / "two.csv"], tmp_path / "all.csv")
    assert (tmp_path / "all.csv").read_text() == (
        "ablation,method,a,b\none,x,1.50,\none,y,,\ntwo,z,,2\n"
    )
    (tmp_path / "two.csv").write_text("method,b\n")
    with pytest.raises(TableError, match=r"two\.csv: has no rows"):
        gather([tmp_path / "two.csv"], tmp_path / "all.csv")
    with pytest.raises(TableError, match=r"gone\.csv: no such file"):
        gather([tmp_path / "gone.csv"], tmp_path / "all.csv")


def _sentiment(root: Path, split: str, method: str, ids: list[str], percent: float) -> Path:
    """An evaluation whose prompts all have the same percentage, and as many generations."""
    folder = root / f"sentiment_positive/{method}/seed-1/evaluation/{split}/nucleus"
    n = len(ids)
    columns = {
        "prompt_id": ids,
        **{name: [2] * n for name in ("n_generations", "ppl_count", "tokens")},
        **{name: [0] * n for name in ("n_unscored", "n_empty", "ppl_dropped")},
        "pct_positive": [percent] * n,
        "pct_positive_second": [None] * n,
        "ppl": [[percent, percent]] * n,
        "ppl_sum": [2 * percent] * n,
        **{name: [0.5] * n for name in ("nll", "dist1", "dist2", "dist3")},
    }
    schemas.write(folder / "prompts.parquet", prompt_schema(TASKS["sentiment_positive"]), columns)
    about = {"task": "sentiment_positive", "split": split, "method": method, "seed": 1}
    about |= SETTING | dict.fromkeys(COSTS, 10) | {"decoding": "nucleus"}
    (folder / "settings.json").write_text(json.dumps(about))
    return folder


def test_fluency_is_pooled_where_it_is_published_so(tmp_path: Path) -> None:
    """Twice as many neutral prompts weigh twice as much; costs stay with the splits."""
    folders = [
        _sentiment(tmp_path, split, method, ids, percent)
        for method in ("base", "quark")
        for split, ids, percent in (("negative", ["a"], 8.0), ("neutral", ["b", "c"], 2.0))
    ]
    published = PUBLISHED_CSV.with_name("sentiment_positive.csv")
    make_table(folders, published, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["split"], row["method"]) for row in rows] == [
        (split, method) for split in ("negative", "neutral", "all") for method in ("base", "quark")
    ]
    pooled = rows[-1]
    assert float(pooled["output_ppl"]) == (2 * 8 + 4 * 2) / 6
    assert (pooled["n_prompts"], pooled["scorer_calls_per_seed"]) == ("3", "")
    assert (pooled["published_output_ppl"], pooled["published_pct_positive"]) == ("14.54", "")
    assert (rows[1]["published_output_ppl"], rows[1]["published_method"]) == ("", "Quark")
    assert float(rows[1]["published_pct_positive"]) > 0
    assert "| all | quark | Quark | - | 14.54 | 0.80 | 0.84 |" in (tmp_path / "t.md").read_text()
    make_table(
        folders[::2], published, tmp_path / "t.csv"
    )  # one split is not what was pooled there
    assert ",all," not in (tmp_path / "t.csv").read_text()
