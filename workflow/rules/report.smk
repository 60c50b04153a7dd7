"""The page of a task, and the other results that `snakemake --report` gathers."""

HERE = workflow.current_basedir.get_path_or_uri(secret_free=True)
CAPTIONS = os.path.relpath(Path(HERE) / "../report")


rule page:
    input:
        table=rules.publish.output.csv,
        costs=rules.costs.output.csv,
        generations=lambda w: GRAPH.shown(w.task, "generations.parquet"),
        scores=lambda w: GRAPH.shown(w.task, "scores.parquet"),
        figures=lambda w: GRAPH.figures(w.task),
        captions=lambda w: [
            local(f"{CAPTIONS}/{Path(figure).stem}.rst")
            for figure in GRAPH.figures(w.task)
        ],
    output:
        html=report(
            "results/report/{task}.html",
            caption="../report/page.rst",
            category="Pages",
            labels={"task": "{task}"},
        ),
    log:
        "logs/{task}/page.log",
    benchmark:
        "results/benchmarks/jobs/{task}/page.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=minutes(10),
    params:
        settings=lambda w: as_json(CONFIG),
        methods=lambda w: repeated("methods", GRAPH.compared(w.task)),
        generations=lambda w, input: repeated("generations", input.generations),
        scores=lambda w, input: repeated("scores", input.scores),
        figures=lambda w, input: repeated("figures", input.figures),
        captions=lambda w, input: repeated("captions", input.captions),
    shell:
        "quark page --task {wildcards.task} --settings {params.settings:q} --table {input.table}"
        " --costs {input.costs} {params.methods} {params.generations} {params.scores}"
        " {params.figures} {params.captions} --out {output.html} 2> {log}"
