"""The documentation: it builds, its commands and keys exist, its Python runs."""

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from runs import configured

import quark
from quark.cli import app
from quark.config import load
from quark.core import schemas
from quark.data import fetch_model

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])


def pages(nav: list | dict | str) -> list[str]:
    """The files that the navigation names."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [file for part in parts for file in pages(part)]


def test_every_page_is_in_the_navigation():
    named = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(named) == sorted(str(file.relative_to(DOCS)) for file in DOCS.rglob("*.md"))


def test_the_site_builds_strictly(tmp_path):
    """Every link within the site leads somewhere."""
    for name in ("docs", "config"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    command = [Path(sys.executable).with_name("zensical"), "build", "--strict", "--clean"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    home = (tmp_path / "site/index.html").read_text()
    assert "Quark Pipeline" in home
    assert not re.search(r"""(src|href)=["']https?://[^"']*\.(js|css|woff2?)""", home)
    settings = (tmp_path / "site/reference/configuration/index.html").read_text()
    assert "quark.training.kl_coef" in settings


@pytest.mark.parametrize("page", PAGES, ids=lambda file: file.name)
def test_every_verb_that_is_named_exists(page):
    verbs = {(c.name or c.callback.__name__).replace("_", "-") for c in app.registered_commands}
    named = set(re.findall(r"^    (?:    )?quark ([a-z-]+)", page.read_text(), re.MULTILINE))
    named |= set(re.findall(r"`quark ([a-z][a-z-]*)", page.read_text()))
    assert named <= verbs | {"VERB"}


def test_the_command_line_is_described_as_it_is():
    made = subprocess.run(
        [sys.executable, "-m", "typer", "quark.cli", "utils", "docs", "--name", "quark"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert (DOCS / "reference/cli.md").read_text().strip() == made.strip(), (
        "python -m typer quark.cli utils docs --name quark --output docs/reference/cli.md"
    )


def test_every_column_is_described():
    text = (DOCS / "reference/files.md").read_text()
    for name in ("PROMPTS", "SAMPLES", "SCORES", "POOL", "CORPUS", "LIKELIHOODS", "PREDICTIONS"):
        for column in getattr(schemas, name).names:
            assert f"`{column}`" in text, f"{name}: {column}"


def test_the_python_page_runs(tmp_path, monkeypatch):
    """On a tiny model in the place of the real one."""
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "reference/python.md").read_text(), re.S)
    source = configured("llama", "linear").models["tiny-gpt2"]
    fetch_model("smollm2-135m", source, tmp_path / "resources/models/smollm2-135m")
    (tmp_path / "config").symlink_to(ROOT / "config")
    monkeypatch.chdir(tmp_path)
    made = {}
    exec(code, made)
    assert len(made["texts"]) == 8 and all(made["texts"])
    assert sorted(made["places"]) == [0] * 4 + [1] * 4
    best, worst = (made["rewards"][made["places"] == k] for k in (0, 1))
    assert best.min() >= worst.max()


def test_public_names_exist_and_are_on_the_page():
    page = (DOCS / "reference/python.md").read_text()
    for name in quark.PUBLIC:
        assert callable(getattr(quark, name))
        assert f"`{name}`" in page
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        quark.nothing  # noqa: B018


def test_the_overlays_that_are_shown_are_valid(tmp_path):
    """Each block of YAML that begins with the name of a file in config/."""
    blocks = 0
    shown = re.compile(r"^((?: {4,8}# config/[\w-]+\.yaml\n)(?: {4,}.*\n)+)", re.MULTILINE)
    for page in PAGES:
        for block in shown.findall(page.read_text()):
            lines = textwrap.dedent(block).splitlines()
            text = "\n".join(line for line in lines if not line.startswith("snakemake"))
            file = tmp_path / f"{blocks}.yaml"
            file.write_text(text.replace("COMMIT", "a" * 40))
            load([ROOT / "config/config.yaml", file])
            blocks += 1
    assert blocks >= 4
