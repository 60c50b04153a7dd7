"""The workflow with its files in a storage: what a rule does not declare is missing there."""

import shutil

import pytest

pytestmark = pytest.mark.slow
if shutil.which("rsync") is None:  # the plugin copies with it
    pytest.skip("rsync is not installed", allow_module_level=True)


def test_the_same_table_as_without_storage(finished, empty, tmp_path):
    """Another folder stands in for the storage; jobs see copies of the files that they declare."""
    mount = tmp_path / "mount"
    mount.mkdir()
    where = ("--default-storage-provider", "fs", "--default-storage-prefix", str(mount))
    storage = (*where, "--shared-fs-usage", "none")
    page = "results/report/toxicity.html"
    empty.run(*storage, targets=(page,))
    table = "results/tables/toxicity.csv"
    assert (mount / table).read_bytes() == (finished.folder / table).read_bytes()
    assert (mount / page).stat().st_size > 10_000
    here = {file.name for file in (empty.folder / "results").glob("[!.]*")}
    assert here == {"precision.json", "mlflow.db", "mlartifacts"}  # of this machine
    assert not empty.planned(*storage, targets=(page,))
