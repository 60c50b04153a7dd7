"""Set the number of threads of a job, and choose its GPU."""

import os
import sys


def use_threads(threads: int, *, gpu: bool = True) -> None:
    """Limit torch and the tokenizers to the threads of the job.

    `gpu`: whether the job computes with a model; if there are several GPUs, it takes a free one.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch
    from transformers.utils import logging as transformers_logging

    from quark.models.gpus import take_gpu
    from quark.models.memory import keep_freed_memory

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()  # a progress bar would fill a log
    torch.set_num_threads(min(threads, os.cpu_count() or 1))
    keep_freed_memory()
    if gpu:
        take_gpu()
