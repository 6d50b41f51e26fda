"""Start runs: one in this process, or many, each in a child process of its own.

A single run stays in this process, so that a debugger, `accelerate launch -m sage` and Hydra's cluster
launchers work as with any script. In a multirun the parent imports neither torch nor a model: it validates
every config before the first run starts, schedules child processes, and reports.

    claim.py     which attempt folder a run works in, or why it does not start
    execute.py   one run in this process: claim, heartbeat, `sage.run.run`, done or failed
    before.py    what a multirun refuses once, before its first run starts
    child.py     `python -m sage.launch.child`, the process of one run of a multirun
    schedule.py  n children at a time; signals, deaths, nothing orphaned
    remote.py    the same children started elsewhere: `submitit_queue.py` (SLURM), `ray_queue.py`
    study.py     declared matrices of runs to command lines
    multirun.py  many composed configs to outcomes; `table.py` shows them
    cli.py       errors to sentences and exit codes
"""
