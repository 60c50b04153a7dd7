"""The tables: measured numbers, the paper's numbers beside them, and the costs."""


rule table:
    input:
        metrics=lambda w: GRAPH.evaluated(w.task, "metrics.json"),
        beside=lambda w: GRAPH.measured(w.task),
        published=lambda w: published(w.task),
    output:
        csv="results/{task}/table.csv",
        md="results/{task}/table.md",
        tex="results/{task}/table.tex",
    log:
        "logs/{task}/table.log",
    benchmark:
        "results/benchmarks/jobs/{task}/table.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=minutes(10),
    params:
        metrics=lambda w, input: repeated("evaluations", input.metrics),
        published=lambda w, input: option("published", input.published),
    shell:
        "quark make-table {params.metrics} {params.published} --out {output.csv} 2> {log}"


# What tables need of a run in one small file, so that one table can be made of several runs.
rule archive:
    input:
        metrics=lambda w: GRAPH.evaluated(w.task, "metrics.json"),
        beside=lambda w: GRAPH.measured(w.task),
    output:
        "results/archives/{task}.zip",
    log:
        "logs/{task}/archive.log",
    benchmark:
        "results/benchmarks/jobs/{task}/archive.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=minutes(10),
    params:
        metrics=lambda w, input: repeated("evaluations", input.metrics),
    shell:
        "quark archive {params.metrics} --out {output} 2> {log}"


use rule table as ablation with:
    input:
        metrics=lambda w: GRAPH.evaluated(
            CONFIG.ablations[w.sweep].task, "metrics.json", GRAPH.sweep(w.sweep)
        ),
        beside=lambda w: GRAPH.measured(
            CONFIG.ablations[w.sweep].task, GRAPH.sweep(w.sweep)
        ),
        published=lambda w: published(CONFIG.ablations[w.sweep].task),
    output:
        csv="results/ablations/{sweep}.csv",
        md="results/ablations/{sweep}.md",
        tex="results/ablations/{sweep}.tex",
    log:
        "logs/ablations/{sweep}.log",
    benchmark:
        "results/benchmarks/jobs/ablations/{sweep}.tsv"


use rule table as tries with:
    input:
        metrics=lambda w: GRAPH.evaluated(
            w.task,
            "metrics.json",
            methods=tried(w.task),
            splits=[CONFIG.tuning[w.task].split],
        ),
        beside=lambda w: GRAPH.measured(
            w.task, tried(w.task), [CONFIG.tuning[w.task].split]
        ),
        published=lambda w: published(w.task),
    output:
        csv="results/tuning/{task}/table.csv",
        md="results/tuning/{task}/table.md",
        tex="results/tuning/{task}/table.tex",
    log:
        "logs/tuning/{task}/table.log",
    benchmark:
        "results/benchmarks/jobs/tuning/{task}/table.tsv"


rule tuning:
    input:
        table=rules.tries.output.csv,
        figure="results/figures/tuning/{task}.svg",
    output:
        csv="results/tuning/{task}.csv",
        md="results/tuning/{task}.md",
    log:
        "logs/tuning/{task}.log",
    benchmark:
        "results/benchmarks/jobs/tuning/{task}.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=minutes(10),
    params:
        most=lambda w: CONFIG.tuning[w.task].most_perplexity,
    shell:
        "quark tuning --table {input.table} --most-perplexity {params.most}"
        " --out {output.csv} 2> {log}"


rule ablations:
    input:
        tables=expand("results/ablations/{sweep}.csv", sweep=CONFIG.ablations),
        figures=expand("results/figures/ablations/{sweep}.svg", sweep=CONFIG.ablations),
    output:
        csv="results/tables/ablations.csv",
    log:
        "logs/ablations.log",
    benchmark:
        "results/benchmarks/jobs/ablations.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=minutes(10),
    params:
        tables=lambda w, input: repeated("tables", input.tables),
    shell:
        "quark ablations {params.tables} --out {output.csv} 2> {log}"


# A run of many seeds has too many files for a shell command, so a file lists them.
rule costs:
    input:
        stages=lambda w: GRAPH.costs(w.task),
    output:
        csv=report(
            "results/tables/{task}_cost.csv",
            caption="../report/costs.rst",
            category="Tables",
            labels={"task": "{task}", "table": "costs"},
        ),
        listed=temp("results/{task}/stages.txt"),
    log:
        "logs/{task}/costs.log",
    benchmark:
        "results/benchmarks/jobs/{task}/costs.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=minutes(10),
    run:
        Path(output.listed).write_text("\n".join(input.stages))
        shell("quark costs --stages {output.listed} --out {output.csv} 2> {log}")


# The table appears in results/tables/ only when its costs and its tracking are complete.
rule publish:
    input:
        csv=rules.table.output.csv,
        md=rules.table.output.md,
        tex=rules.table.output.tex,
        costs=rules.costs.output.csv,
        tracked=lambda w: tracked(w.task),
    output:
        csv=report(
            "results/tables/{task}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"task": "{task}", "table": "measured and published"},
        ),
        md="results/tables/{task}.md",
        tex="results/tables/{task}.tex",
    log:
        "logs/{task}/publish.log",
    benchmark:
        "results/benchmarks/jobs/{task}/publish.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=growing(100),
        runtime=minutes(10),
    shell:
        "{{ made=$(dirname {input.csv}); tables=$(dirname {output.csv});"
        " for kind in md tex csv; do"
        ' cp "$made/table.$kind" "$tables/.{wildcards.task}.$kind" &&'
        ' mv "$tables/.{wildcards.task}.$kind" "$tables/{wildcards.task}.$kind" || exit;'
        " done; }} 2> {log}"
