"""Pretrained models and prompts, fetched once."""


rule fetch_model:
    output:
        model=directory("resources/models/{name}"),
    log:
        "logs/fetch_model/{name}.log",
    benchmark:
        "results/benchmarks/jobs/fetch_model/{name}.tsv"
    conda:
        CONDA
    threads: workflow.cores or 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        settings=lambda wildcards: as_json(CONFIG.models[wildcards.name]),
    shell:
        "quark fetch-model --name {wildcards.name} --settings {params.settings:q}"
        " --threads {threads} --out {output.model} 2> {log}"


for name, source in CONFIG.prompts.items():

    rule:
        name:
            f"fetch_prompts_{name}"
        output:
            splits=expand(
                f"resources/prompts/{name}/{{split}}.parquet",
                split=["train", *source.splits],
            ),
        log:
            f"logs/fetch_prompts/{name}.log",
        benchmark:
            f"results/benchmarks/jobs/fetch_prompts/{name}.tsv"
        conda:
            CONDA
        threads: 1
        resources:
            mem_mb=2000,
            runtime=60,
        params:
            name=name,
            settings=as_json(source),
        shell:
            "quark fetch-prompts --name {params.name} --settings {params.settings:q}"
            " --out resources/prompts/{params.name} 2> {log}"
