"""MLflow: log each run after it has ended; a new log replaces the run's earlier log."""


rule track:
    input:
        table=rules.table.output.csv,
        text=rules.table.output.md,
        run=lambda w: GRAPH.logged(w.task, w.method, int(w.seed)),
        prompts=prompts,
    output:
        mark="results/tracking/{task}/{method}/seed-{seed}.json",
    log:
        "logs/{task}/{method}/seed-{seed}/track.log",
    benchmark:
        "results/benchmarks/jobs/{task}/{method}/seed-{seed}/track.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=minutes(10),
    params:
        settings=lambda w: as_json(GRAPH.tasks[w.task]),
        prompts=lambda w, input: repeated(
            "prompts",
            [
                f"{input.prompts}/{s}.parquet"
                for s in ("train", *CONFIG.tasks[w.task].splits)
            ],
        ),
    shell:
        "quark track --task {wildcards.task} --method {wildcards.method} --seed {wildcards.seed}"
        " --settings {params.settings:q} --results $(dirname $(dirname {input.table}))"
        " --table {input.table}"
        " {params.prompts} --store results/mlflow.db --out {output.mark} 2> {log}"
