# Quark, from sampling to the paper's tables. This file is an index; see workflow/README.md.
from snakemake.utils import min_version

min_version("9.0")


include: "workflow/rules/default.smk"


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/inputs.smk"
include: "workflow/rules/progress.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/quark.smk"
include: "workflow/rules/sorting.smk"
include: "workflow/rules/baselines.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/shards.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/tracking.smk"
include: "workflow/rules/benchmarks.smk"


localrules:
    all,
    publish,
    table,
    ablation,
    ablations,
    tries,
    tuning,
    tradeoff,
    published,
    sweep,
    operating,
    rewards,
    curves,
    page,
    costs,
    track,


rule all:
    default_target: True
    input:
        tables(),
        pages(),
