"""Set the number of threads of a job."""

import os
import sys


def use_threads(threads: int) -> None:
    """Limit torch and the tokenizers to the number of threads that the job may use."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch
    from transformers.utils import logging as transformers_logging

    from quark.models.memory import keep_freed_memory

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()  # a progress bar would fill a log
    torch.set_num_threads(min(threads, os.cpu_count() or 1))
    keep_freed_memory()
