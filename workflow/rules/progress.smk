"""How far a run on this machine is, and how long it will take: a line after each job."""

HEAVY = 5e12  # operations; a run of less is over before it is measured


def begin_progress():
    """Say how long the run will take, and have each finished job say how long is left."""
    if not workflow.local_exec:
        return  # a cluster's nodes are not this machine, and jobs run side by side
    jobs = {job.jobid: job for job in workflow.dag.needrun_jobs()}
    about = {job.wildcards_dict.get("task") for job in jobs.values()}
    try:
        costs = planning.plan(CONFIG, [task for task in CONFIG.tasks if task in about])
    except configuration.ConfigError as error:
        logger.warning(f"how long it will take is not known: {error}")
        return
    slow = planning.Expected(costs, planning.Machine(1.0))  # 10 ** 9 a second
    if sum(slow.seconds(job.rule.name, job.wildcards_dict) for job in jobs.values()) < (
        HEAVY / 1e9
    ):
        return
    here = planning.this_machine(CONFIG.precision, CORES)
    expected = planning.Expected(costs, here)
    progress = planning.Progress(
        {i: expected.seconds(j.rule.name, j.wildcards_dict) for i, j in jobs.items()},
        RESULTS,
        say=logger.warning,
    )
    logger.warning(progress.line())
    logger.addHandler(progress)
