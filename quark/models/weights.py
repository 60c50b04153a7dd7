"""What is made sure of a model directory before it is loaded.

It imports no torch.
"""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from quark.core.files import DamagedError, again, verify_once


class CustomCodeError(ValueError):
    """A model directory that asks for code of its own to be run; the text names it."""


def check_model(folder: Path) -> None:
    """Make sure that a model or a classifier asks for no code, and that its weights are whole.

    Weights that a manifest knows are compared with it, others must have a sound header.

    Raises:
        CustomCodeError: it asks for code.
        DamagedError: a file of weights is not as it was written.
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
    """Make sure that neither configuration nor tokenizer of a model names code of its own.

    Raises:
        CustomCodeError: one does, even if transformers has code for this kind of model.
    """
    for name in ("config.json", "tokenizer_config.json"):
        try:
            asks = "auto_map" in json.loads((folder / name).read_text())
        except (OSError, ValueError):
            continue  # missing or no JSON, which the loader says better
        if asks:
            raise CustomCodeError(
                f"{folder}: {name} has `auto_map`: the model asks for Python code of its author, "
                "and none is run. Take a model that transformers itself knows; if it knows this "
                "one, remove `auto_map` from a copy of the directory"
            )
