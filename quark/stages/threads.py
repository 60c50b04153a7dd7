"""Set the number of threads of a job, and choose its GPU."""

import os
import sys


def use_threads(threads: int) -> None:
    """Limit torch and the tokenizers to the threads of the job, and take a free GPU, if any."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch
    from transformers.utils import logging as transformers_logging

    from quark.models.gpus import take_gpu
    from quark.models.memory import keep_freed_memory

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()  # a progress bar would fill a log
    torch.set_num_threads(min(threads, os.cpu_count() or 1))
    keep_freed_memory()
    take_gpu()
