"""What the YAML files name; the harness runs this file once for each name, `task` stays one."""

from quark.tools.harness.task import prompts, scored

__all__ = ["prompts", "scored"]
