"""Sampling and judging cut into shards that run side by side: `--set-scatter shards=8`.

The number of shards is the machine's business and changes no byte of what comes out. Set it before
a run: with another number, what is there already is made again.
"""

if SHARDS > 1:

    use rule sample as sample_shard with:
        output:
            samples=temp(f"{ITERATION}/shard-{{shard}}/samples.parquet"),
            memo=temp(f"{ITERATION}/shard-{{shard}}/samples.memo.safetensors"),
            cost=temp(f"{ITERATION}/shard-{{shard}}/samples.json"),
        log:
            "logs/{task}/{method}/seed-{seed}/iteration-{iteration}/sample-{shard}.log",
        benchmark:
            "results/benchmarks/jobs/{task}/{method}/seed-{seed}/iteration-{iteration}/sample-{shard}.tsv"
        wildcard_constraints:
            method=iterated(),
            seed=SEED,

    rule gather_samples:
        input:
            prompts=prompts,
            parts=shard_files(f"{ITERATION}/samples.parquet"),
            memos=shard_files(f"{ITERATION}/samples.memo.safetensors"),
            costs=shard_files(f"{ITERATION}/samples.json"),
        output:
            samples=f"{ITERATION}/samples.parquet",
            memo=f"{ITERATION}/samples.memo.safetensors",
            cost=f"{ITERATION}/samples.json",
        log:
            "logs/{task}/{method}/seed-{seed}/iteration-{iteration}/gather.log",
        benchmark:
            "results/benchmarks/jobs/{task}/{method}/seed-{seed}/iteration-{iteration}/gather.tsv"
        wildcard_constraints:
            method=iterated(),
        conda:
            CONDA
        threads: 1
        resources:
            mem_mb=4000,
            runtime=60,
        params:
            parts=lambda w, input: repeated("parts", input.parts),
            memos=lambda w, input: repeated("memos", input.memos),
        shell:
            "quark gather {params.parts} {params.memos} --order {input.prompts}/train.parquet"
            " --memo {output.memo} --out {output.samples} 2> {log}"

    use rule generate as generate_shard with:
        output:
            generations=temp(f"{EVALUATION}/shard-{{shard}}/generations.parquet"),
            cost=temp(f"{EVALUATION}/shard-{{shard}}/generations.json"),
        log:
            "logs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/generate-{shard}.log",
        benchmark:
            "results/benchmarks/jobs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/generate-{shard}.tsv"
        wildcard_constraints:
            seed=SEED,

    rule gather_generations:
        input:
            prompts=prompts,
            parts=shard_files(f"{EVALUATION}/generations.parquet"),
            costs=shard_files(f"{EVALUATION}/generations.json"),
        output:
            generations=f"{EVALUATION}/generations.parquet",
            cost=f"{EVALUATION}/generations.json",
        log:
            "logs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/gather.log",
        benchmark:
            "results/benchmarks/jobs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/gather.tsv"
        conda:
            CONDA
        threads: 1
        resources:
            mem_mb=4000,
            runtime=60,
        params:
            parts=lambda w, input: repeated("parts", input.parts),
        shell:
            "quark gather {params.parts} --order {input.prompts}/{wildcards.split}.parquet"
            " --out {output.generations} 2> {log}"

    use rule judge as judge_shard with:
        output:
            likelihoods=temp(f"{EVALUATION}/shard-{{shard}}/likelihoods.parquet"),
            cost=temp(f"{EVALUATION}/shard-{{shard}}/likelihoods.json"),
        log:
            "logs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/judge-{shard}.log",
        benchmark:
            "results/benchmarks/jobs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/judge-{shard}.tsv"
        wildcard_constraints:
            seed=SEED,

    rule gather_likelihoods:
        input:
            generations=f"{EVALUATION}/generations.parquet",
            parts=shard_files(f"{EVALUATION}/likelihoods.parquet"),
            costs=shard_files(f"{EVALUATION}/likelihoods.json"),
        output:
            likelihoods=f"{EVALUATION}/likelihoods.parquet",
            cost=f"{EVALUATION}/likelihoods.json",
        log:
            "logs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/gather_likelihoods.log",
        benchmark:
            "results/benchmarks/jobs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/gather_likelihoods.tsv"
        conda:
            CONDA
        threads: 1
        resources:
            mem_mb=4000,
            runtime=60,
        params:
            parts=lambda w, input: repeated("parts", input.parts),
        shell:
            "quark gather {params.parts} --order {input.generations}"
            " --out {output.likelihoods} 2> {log}"
