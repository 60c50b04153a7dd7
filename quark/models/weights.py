"""Checks of a model directory before it is loaded.

It imports no torch.
"""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from quark.core.files import DamagedError, again, verify_once


class CustomCodeError(ValueError):
    """A model directory that requires custom code; the text names the directory."""


def check_model(folder: Path) -> None:
    """Check that a model or a classifier requires no custom code, and has undamaged weights.

    Weights with a checksum in a manifest are compared with it; others must have a valid header.

    Raises:
        CustomCodeError: it requires custom code.
        DamagedError: a file of weights is damaged.
    """
    refuse_code(folder)
    manifest = folder / "manifest.json"
    for file in sorted(folder.glob("*.safetensors")):
        verify_once(file, manifest, target=folder)
        try:
            with safe_open(file, framework="numpy"):  # reads the header alone
                pass
        except (SafetensorError, OSError) as error:
            mend = again(folder) if manifest.is_file() else "copy or fetch the directory anew"
            raise DamagedError(f"{file}: damaged ({error}). Make it again: {mend}") from None


def refuse_code(folder: Path) -> None:
    """Check that neither the configuration nor the tokenizer of a model names custom code.

    Raises:
        CustomCodeError: one of them does, even if transformers has code for this kind of model.
    """
    for name in ("config.json", "tokenizer_config.json"):
        try:
            asks = "auto_map" in json.loads((folder / name).read_text())
        except (OSError, ValueError):
            continue  # missing, or not JSON: the loader's message is clearer
        if asks:
            raise CustomCodeError(
                f"{folder}: {name} has `auto_map`: the model asks for Python code of its author, "
                "and none is run. Take a model that transformers itself knows; if it knows this "
                "one, remove `auto_map` from a copy of the directory"
            )
