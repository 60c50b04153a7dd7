"""RealToxicityPrompts with local scorers, as tasks of EleutherAI's lm-evaluation-harness.

`python -m quark.tools.harness` prints the directory to give as `--include_path`; `docs/measure.md`
shows the command.
"""
