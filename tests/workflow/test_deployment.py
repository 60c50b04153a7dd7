"""Jobs in an image or a conda environment run the `quark` that is in there.

Neither program is needed: a script stands in for each, and records what ran through it.
"""

import sys
from pathlib import Path

import pytest

PROMPTS = "resources/prompts/handmade"
APPTAINER = """#!/bin/bash
# apptainer exec OPTIONS IMAGE bash -c COMMAND
[ "$1" != --version ] || { echo "apptainer version 1.4.0"; exit; }
PATH=%(image)s:/usr/bin:/bin exec bash -c "${@: -1}"
"""
CONDA = """#!/bin/bash
# conda info, --version, config --get channel_priority, or env create ... --prefix FOLDER
case "$1" in
    info) echo '{"conda_prefix": "%(home)s", "platform": "linux-64"}' ;;
    --version) echo "conda 25.1.0" ;;
    config) echo '{"get": {"channel_priority": "strict"}}' ;;
    env) while [ "$1" != --prefix ]; do shift; done; mkdir -p "$2"; cp -r %(home)s/env/bin "$2" ;;
esac
"""


def program(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    """A folder of programs that Snakemake finds."""
    folder = tmp_path / "programs"
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


def recording(real: Path, record: Path) -> str:
    return f'#!/bin/bash\necho "$@" >> {record}\nexec {real} "$@"\n'


def test_in_an_image(empty, path, tmp_path):
    image, record = tmp_path / "quark.sif", tmp_path / "record"
    image.touch()
    program(path / "apptainer", APPTAINER % {"image": tmp_path / "image"})
    program(tmp_path / "image/quark", recording(Path(sys.executable).parent / "quark", record))
    settings = ("--config", f"image={image}")
    empty.run("--sdm", "apptainer", *settings, targets=(PROMPTS,))
    assert record.read_text().startswith("fetch-prompts --name handmade")


def test_an_image_counts_only_if_it_is_asked_for(empty, path, tmp_path):
    program(path / "apptainer", "#!/bin/bash\nexit 1\n")
    empty.run("--config", f"image={tmp_path / 'missing.sif'}", targets=(PROMPTS,))


def test_in_a_conda_environment(empty, path, tmp_path):
    home, record = tmp_path / "conda", tmp_path / "record"
    program(path / "conda", CONDA % {"home": home})
    program(home / "bin/activate", "export PATH=$1/bin:$PATH\n")
    program(home / "env/bin/python", recording(Path(sys.executable), record))
    empty.run("--sdm", "conda", targets=(PROMPTS,))
    assert record.read_text().startswith("-m quark.cli fetch-prompts --name handmade")
