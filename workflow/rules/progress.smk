"""How far a run on this machine is, and how long it will take: a line after each job."""

HEAVY = 5e12  # operations; a run of less is over before it is measured


def begin_progress():
    """Say how long the run will take, and have each finished job say how long is left.

    It is an estimate: whatever goes wrong with it must not stop the run.
    """
    planning.forget_progress(RESULTS)
    try:
        progress = expected_progress()
    except Exception as error:
        logger.warning(f"how long it will take is not known: {error}")
        return
    if progress is not None:
        progress.tell()
        logger.addHandler(progress)


def expected_progress():
    """What tells how far the run is; None: it is short, or runs on other machines."""
    if not workflow.local_exec:
        return None
    jobs = {job.jobid: job for job in workflow.dag.needrun_jobs()}
    about = {job.wildcards_dict.get("task") for job in jobs.values()}
    costs = planning.plan(CONFIG, [task for task in CONFIG.tasks if task in about])

    def seconds(machine):
        expected = planning.Expected(costs, machine)
        return {
            number: expected.seconds(job.rule.name, job.wildcards_dict)
            for number, job in jobs.items()
        }

    if sum(seconds(planning.Machine(1.0)).values()) < HEAVY / 1e9:
        return None
    here = planning.this_machine(CONFIG.precision, CORES)
    return planning.Progress(seconds(here), RESULTS, say=logger.warning)
