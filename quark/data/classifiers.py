"""Text-classification models, fetched once as safetensors."""

import tempfile
from pathlib import Path

from quark.config import Source
from quark.core.files import sha256, whole, write_json
from quark.data import tox_block
from quark.data.fetch import ResourceError, fetch
from quark.models.weights import check_model


def fetch_classifier(name: str, source: Source, out: Path) -> None:
    """Write the directory `out`: model.safetensors, configuration, tokenizer, manifest.json.

    A package holds tox-block's model, which has other files: see `quark.data.tox_block`.

    Args:
        name: in the configuration.
        source: where the model comes from; pickled weights and code of its own are refused.
        out: the directory.

    Raises:
        ResourceError: it cannot be fetched or is no text-classification model.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    resource = f"classifiers.{name}"
    with tempfile.TemporaryDirectory() as scratch:
        found = fetch(resource, source, Path(scratch))
        if source.package:
            tox_block.convert(name, source, found, out)
            return
        (folder,) = found
        try:
            check_model(folder)
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                folder,
                output_loading_info=True,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
            )
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise ResourceError(f"{resource}: {folder.name} cannot be loaded: {error}") from error
        if missing := sorted(loading["missing_keys"]):
            raise ResourceError(
                f"{resource}: {folder.name} lacks {len(missing)} weights, e.g. {missing[0]}; is it "
                "a text-classification model, and whole?"
            )
        with whole(out) as made:
            model.save_pretrained(made, max_shard_size="1000GB")  # one file, whatever its size
            tokenizer.save_pretrained(made)
            manifest = {
                "name": name,
                "source": source.model_dump(mode="json", exclude_none=True),
                "licence": source.licence,
                "sha256": sha256(made / "model.safetensors"),
                "labels": list(model.config.id2label.values()),
            }
            write_json(made / "manifest.json", manifest)
