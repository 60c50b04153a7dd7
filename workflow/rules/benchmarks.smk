"""Benchmarks: the speed of the stages on this machine. No result depends on them."""


rule measure:
    input:
        model=f"resources/models/{CONFIG.benchmark.model}",
    output:
        csv="results/benchmarks/{what}.csv",
    log:
        "logs/benchmarks/{what}.log",
    benchmark:
        "results/benchmarks/jobs/{what}.tsv"
    wildcard_constraints:
        what="speed|scaling",
    conda:
        CONDA
    threads: CORES
    resources:
        mem_mb=growing(12000),
        runtime=minutes(60),
    params:
        settings=as_json(derive.speed(CONFIG)),
    shell:
        "quark benchmark --what {wildcards.what} --settings {params.settings:q} --model {input.model}"
        " --threads {threads} --memory-mb {resources.mem_mb} --out {output.csv} 2> {log}"
