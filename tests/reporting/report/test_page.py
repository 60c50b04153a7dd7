"""The page of a task, as a file and in a browser."""

import base64
import csv
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from browser import ask, needs_chromium
from runs import configured

from quark.core import schemas
from quark.core.schemas import TableError
from quark.reporting.report import Written, make_page

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="4"/></svg>'


def samples(folder: Path, method: str, texts: list[str], scores: list[float | None]) -> Written:
    n = len(texts)
    rows = {"row_id": [f"0/p{i}/0" for i in range(n)], "prompt_id": [f"p{i}" for i in range(n)]}
    made = {
        **rows,
        "sample": [0] * n,
        "prompt": [f"prompt <{i}>" for i in range(n)],
        "response": texts,
        "prompt_ids": [[1]] * n,
        "response_ids": [[2]] * n,
    }
    own = folder / method
    schemas.write(own / "generations.parquet", schemas.SAMPLES, made)
    schemas.write(own / "scores.parquet", schemas.SCORES, {**rows, "score": scores})
    return Written(method, own / "generations.parquet", own / "scores.parquet")


def page(folder: Path, **change: Any) -> Path:
    row: dict[str, Any] = {"task": "toxicity", "split": "nontoxic", "decoding": "nucleus"}
    row |= {"method": "base", "avg_max_toxicity": 0.5, "published_method": ""}
    row |= dict.fromkeys(("n_seeds", "n_prompts", "n_prompts_unscored", "n_generations"), 1)
    row |= dict.fromkeys(("n_unscored", "n_empty", "n_ppl_dropped"), 0)
    costs = ("scorer_calls", "tokens_sampled", "training_sequences", "training_tokens")
    row |= {f"{cost}_per_seed": 3.0 for cost in costs}
    stages = [
        {"task": "toxicity", "method": "quark", "rows": 2, "tokens": 1000, "seconds": 90},
        {"task": "models", "method": "", "rows": 1, "tokens": "", "seconds": 30},
        {"task": "total", "method": "", "rows": 3, "tokens": 1000, "seconds": 120},
    ]
    for name, rows in (("table", [row]), ("costs", stages)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    (folder / "tradeoff.svg").write_text(SVG)
    (folder / "tradeoff.rst").write_text("What costs what.\n")
    written = [
        samples(folder, "base", ["vile words", "fine", "lost"], [0.9, 0.5, None]),
        samples(folder, "quark", ["kind words", "<b>bold</b>", "found"], [0.1, 0.2, 0.3]),
    ]
    how: dict[str, Any] = {
        "table": folder / "table.csv",
        "costs": folder / "costs.csv",
        "written": written,
        "figures": [folder / "tradeoff.svg"],
        "captions": [folder / "tradeoff.rst"],
        "out": folder / "page.html",
    }
    make_page(configured("gpt2", "linear"), "toxicity", **(how | change))
    return folder / "page.html"


def test_text_above_the_threshold_or_without_a_score_waits_behind_a_click(tmp_path: Path) -> None:
    html = page(tmp_path).read_text()
    for text in ("vile words", "lost"):
        assert f"<details><summary>show</summary>{text}</details>" in html
    for text in ("fine", "kind words", "found"):
        assert f"</summary>{text}<" not in html and text in html
    assert "&lt;b&gt;bold&lt;/b&gt;" in html and "prompt &lt;0&gt;" in html  # text, never markup


def test_tables_costs_settings_and_versions_are_there(tmp_path: Path) -> None:
    html = page(tmp_path).read_text()
    assert '<td class="number">0.500</td>' in html
    assert '<td class="number">1.5</td>' in html  # minutes of quark
    assert "&#34;kl_coef&#34;: " in html
    assert "torch 2." in html and "What is unlearned, against fluency" in html
    assert "What costs what." in html
    assert page(tmp_path).read_text() == html


def test_controls_and_marks_of_direction_are_seen(tmp_path: Path) -> None:
    base = samples(tmp_path / "odd", "base", ["a\0b\u202ec\x1bd\u2066e"], [0.1])
    quark = samples(tmp_path / "odd", "quark", ["two\nlines"], [0.1])
    html = page(tmp_path, written=[base, quark]).read_text()
    assert "a\ufffdb\ufffdc\ufffdd\ufffde" in html and "two\nlines" in html
    assert not set("\0\x1b\u202e\u2066") & set(html)


def test_its_policy_allows_its_own_style_and_script_alone(tmp_path: Path) -> None:
    html = page(tmp_path).read_text()
    sums = []
    for name in ("style", "script"):
        (text,) = re.findall(f"<{name}>(.*?)</{name}>", html, re.DOTALL)
        known = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        sums.append(f"{name}-src 'sha256-{known}'")
    assert f"default-src 'none'; {sums[0]}; {sums[1]}; img-src data:;" in html
    assert html.index("Content-Security-Policy") < html.index("<style>")
    assert " style=" not in html and not re.search(r"<[^>]* on[a-z]+=", html)


def test_it_needs_no_network(tmp_path: Path) -> None:
    html = page(tmp_path).read_text()
    assert 'src="http' not in html and 'href="http' not in html
    assert html.count("<script") == html.count("<script>") == 1  # its own, within the page


def test_methods_that_continue_other_prompts_are_refused(tmp_path: Path) -> None:
    other = samples(tmp_path / "other", "quark", ["a"], [0.1])
    mine = samples(tmp_path, "base", ["a", "b"], [0.1, 0.1])
    with pytest.raises(TableError, match=r"other prompts than .*base"):
        page(tmp_path, written=[mine, other])


@needs_chromium
def test_a_browser_shows_every_part(tmp_path: Path) -> None:
    found = ask(
        page(tmp_path),
        """async () => ({
            figures: [...document.images].map(i => [i.complete, i.naturalWidth]),
            links: [...document.querySelectorAll("nav a")].filter(
                a => document.querySelector(a.hash)).length,
            style: getComputedStyle(document.querySelector("table")).borderCollapse})""",
    )
    assert found == {"figures": [[True, 9]], "links": 6, "style": "collapse"}


@needs_chromium
def test_a_browser_runs_and_loads_nothing_that_a_text_brings(tmp_path: Path) -> None:
    html = page(tmp_path)
    text = html.read_text()
    (tmp_path / "other.svg").write_text(SVG)
    brought = """<script>window.ran = 1</script><img src="no" onerror="window.ran = 2">
        <img id="other" src="other.svg"><style>body { color: rgb(1, 2, 3) }</style>"""
    seen = """async () => ({ran: window.ran ?? 0,
        width: document.querySelector("#other").naturalWidth,
        color: getComputedStyle(document.body).color})"""
    html.write_text(text.replace("</body>", f"{brought}</body>"))
    assert ask(html, seen) == {"ran": 0, "width": 0, "color": "rgb(34, 34, 34)"}
    html.write_text(html.read_text().replace("Content-Security-Policy", "none"))
    assert ask(html, seen) == {"ran": 2, "width": 9, "color": "rgb(1, 2, 3)"}


@needs_chromium
def test_all_continuations_can_be_sorted_and_filtered(tmp_path: Path) -> None:
    found = ask(
        page(tmp_path),
        """async () => {
            const shown = i => [...document.querySelectorAll("#generations tbody tr")]
                .filter(row => !row.hidden).map(row => row.cells[i].innerText);
            const set = (name, value) => {
                const field = document.querySelector(`#filter [name=${name}]`);
                field.value = value;
                field.dispatchEvent(new Event("input", {bubbles: true}));
            };
            const press = i => document.querySelectorAll("#generations th button")[i].click();
            const found = {all: shown(2)};
            press(2);
            found.up = shown(2);
            press(2);
            found.down = shown(2);
            set("method", "base");
            found.base = shown(1);
            set("least", "0.5");
            found.toxic = shown(2);
            found.count = document.querySelector("#count").textContent;
            return found;
        }""",
    )
    every = ["0.90", "0.50", "no score", "0.10", "0.20", "0.30"]
    assert found["all"] == every
    numbers = ["0.10", "0.20", "0.30", "0.50", "0.90"]
    assert [score for score in found["up"] if score != "no score"] == numbers
    assert [score for score in found["down"] if score != "no score"] == numbers[::-1]
    assert found["base"] == ["base"] * 3
    assert found["toxic"] == ["0.90", "0.50"] and found["count"] == "2"


@needs_chromium
def test_without_its_script_all_continuations_are_there(tmp_path: Path) -> None:
    html = page(tmp_path)
    html.write_text(re.sub("<script>.*?</script>", "", html.read_text(), flags=re.DOTALL))
    found = ask(
        html,
        """async () => ({
            rows: document.querySelectorAll("#generations tbody tr").length,
            form: getComputedStyle(document.querySelector("#filter")).display,
            buttons: [...document.querySelectorAll("th button")].every(b => b.disabled)})""",
    )
    assert found == {"rows": 6, "form": "none", "buttons": True}
