"""Progress of a run on this machine: after each job, a line with the remaining time."""

HEAVY = 5e12  # operations; a run with fewer ends before the machine is measured


def begin_progress():
    """Print how long the run will take, and after each finished job the remaining time.

    The time is only an estimate, so an error here must not stop the run.
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
    """The object that prints the progress; None if the run is short, or runs on other machines."""
    if not workflow.local_exec:
        return None
    jobs = {job.jobid: job for job in workflow.dag.needrun_jobs()}

    def seconds(machine):
        expected = cache(lambda *place: planning.Expected(costs_of(*place), machine))
        return {
            number: expected(*plan_of(job.wildcards_dict)).seconds(
                job.rule.name, job.wildcards_dict
            )
            for number, job in jobs.items()
        }

    if sum(seconds(planning.Machine(1.0)).values()) < HEAVY / 1e9:
        return None
    here = planning.this_machine(CONFIG.precision, CORES)
    return planning.Progress(seconds(here), RESULTS, say=logger.warning)
