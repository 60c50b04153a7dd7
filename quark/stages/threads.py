"""How many threads a job uses."""

import os
import sys


def use_threads(threads: int) -> None:
    """Keep to the threads that were granted."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch
    from transformers.utils import logging as transformers_logging

    from quark.models.memory import keep_freed_memory

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()  # a log wants lines
    torch.set_num_threads(min(threads, os.cpu_count() or 1))
    keep_freed_memory()
