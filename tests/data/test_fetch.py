"""Fetching: real pip, but offline, on wheels made here; the hub's client replaced."""

import hashlib
import zipfile

import huggingface_hub
import pytest

from quark.config import Source
from quark.data import ResourceError
from quark.data.fetch import fetch

FILES = {"fake/data/b.txt": "B", "fake/data/a.txt": "A", "fake/data/deep/c.txt": "C"}


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A directory that pip takes for the only package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def make_wheel(index, files=FILES):
    wheel = index / "fake-1.0-py3-none-any.whl"
    info = "fake-1.0.dist-info"
    metadata = {
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: fake\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, **metadata}.items():
            archive.writestr(name, text)
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def package(sha256, member="fake/data/*.txt", version="1.0"):
    return Source.model_validate(
        {
            "package": {"name": "fake", "version": version, "sha256": sha256, "member": member},
            "licence": "none",
        }
    )


def test_members_come_sorted_and_a_star_crosses_no_slash(index, tmp_path):
    found = fetch("models.x", package(make_wheel(index)), tmp_path / "scratch")
    assert [(file.name, file.read_text()) for file in found] == [("a.txt", "A"), ("b.txt", "B")]


def test_a_package_is_downloaded_once_for_several_sources(index, tmp_path):
    sha256 = make_wheel(index)
    fetch("models.x", package(sha256), tmp_path / "scratch")
    (index / "fake-1.0-py3-none-any.whl").unlink()
    found = fetch("models.y", package(sha256, "fake/data/deep/c.txt"), tmp_path / "scratch")
    assert [file.read_text() for file in found] == ["C"]


def test_wrong_hash_tells_expected_and_got_and_opens_nothing(index, tmp_path):
    got = make_wheel(index)
    with pytest.raises(ResourceError, match=rf"models\.x: .*expected sha256 {'0' * 64}, got {got}"):
        fetch("models.x", package("0" * 64), tmp_path / "scratch")
    assert not list((tmp_path / "scratch").rglob("*.txt"))


def test_missing_version_repeats_what_pip_said(index, tmp_path):
    sha256 = make_wheel(index)
    with pytest.raises(ResourceError, match=r"(?s)models\.x: cannot download fake==2\.0.*No match"):
        fetch("models.x", package(sha256, version="2.0"), tmp_path / "scratch")


def test_missing_member_names_the_nearest(index, tmp_path):
    sha256 = make_wheel(index)
    with pytest.raises(ResourceError, match=r"no member fake/data/aa\.txt; nearest: fake/data/a\."):
        fetch("models.x", package(sha256, "fake/data/aa.txt"), tmp_path / "scratch")


def test_member_that_leads_out_of_the_package_is_refused(index, tmp_path):
    sha256 = make_wheel(index, {"fake/../../evil.txt": "E"})
    with pytest.raises(ResourceError, match=r"evil\.txt leads out of the package"):
        fetch("models.x", package(sha256, "fake/*/*/evil.txt"), tmp_path / "scratch")
    assert not list(tmp_path.rglob("evil.txt"))


def test_missing_local_path_is_named(tmp_path):
    source = Source(local=str(tmp_path / "gone"), licence="none")
    with pytest.raises(ResourceError, match=r"models\.x: .*gone: no such file or directory"):
        fetch("models.x", source, tmp_path)


COMMIT = 5 * "0123abcd"


def hub(**more):
    return Source.model_validate(
        {"hub": {"repository": "someone/thing", "revision": COMMIT, **more}, "licence": "none"}
    )


def test_hub_model_is_pinned_and_brings_no_pickles(tmp_path, monkeypatch):
    asked = {}

    def download(repository, **given):
        asked.update(given, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert fetch("models.x", hub(), tmp_path) == [tmp_path]
    assert (asked["repository"], asked["revision"]) == ("someone/thing", COMMIT)
    files = ["model.safetensors", "config.json", "pytorch_model.bin", "x.pt", "x.pkl", "run.py"]
    allowed = huggingface_hub.utils.filter_repo_objects(
        [*files, "onnx/model.safetensors"],
        allow_patterns=asked["allow_patterns"],
        ignore_patterns=asked["ignore_patterns"],
    )
    assert list(allowed) == ["model.safetensors", "config.json"]


def test_hub_file_comes_from_a_data_set(tmp_path, monkeypatch):
    def download(repository, file, *, revision, repo_type):
        return f"/{repo_type}/{repository}/{revision}/{file}"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    (found,) = fetch("prompts.x", hub(file="p.jsonl"), tmp_path)
    assert str(found) == f"/dataset/someone/thing/{COMMIT}/p.jsonl"


def test_unreachable_hub_is_a_resource_error(tmp_path, monkeypatch):
    def download(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(ResourceError, match=r"models\.x: cannot download someone/thing.*no route"):
        fetch("models.x", hub(), tmp_path)
