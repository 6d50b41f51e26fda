"""How README and guide are followed by the test that types what they say (tests/slow/test_guides.py).

What a command is made of says whether it can be typed here: a model of a hub, a folder of the reader's,
GPUs, a cluster and a database server are not at hand. Such lines are composed by tests/test_commands.py
alone. Trainings without a budget get the smallest, and studies and sweeps one seed: they take hours else.
"""

from __future__ import annotations

import re

NOT_HERE = {
    r"Qwen/|(student|teacher)=hub|student=mine": "a model of a hub, and a GPU for it",
    r"\bDIR\b": "a folder of the reader's own",
    r"-m .*budget=paper": "GPUs, for days",
    r"CUDA_VISIBLE_DEVICES|submitit_slurm|address=auto": "several GPUs, or a cluster",
    r"teacher (status|stop)$": "the teacher on Ray that the lines before start",
    r"postgresql\+psycopg": "a database server",
    r"^alfworld-download": "a host that is no package registry",
    r"nox -s tests": "an hour; what is typed for every change of this repository",
}
"""Pattern of a command -> what it needs that is not at hand."""
SERVERS = {
    r"^mlflow ui": "http://127.0.0.1:5000",
    r"^optuna-dashboard": "http://127.0.0.1:8080",
    r"^tensorboard": "http://127.0.0.1:6006",
    r"^python -m sage view (?!.*--out)": None,
}
"""Commands that go on until they are stopped -> their address, None where they print it."""
_TRAINS = re.compile(
    r"^(?:[A-Z]+=\S+ )*python -m sage(?:$"
    r"| (?!(?:list|check|view|confirm|teacher|task=pretrain)\b)(?!.*--help))"
)


def not_here(command: str) -> str | None:
    """What a command needs that is not at hand; None where it can be typed."""
    return next((why for pattern, why in NOT_HERE.items() if re.search(pattern, command)), None)


def makes_an_environment(command: str) -> str:
    """Why a command is typed by `nox -s guides` alone; empty for others."""
    return "makes an environment: nox -s guides" if command.startswith("python3 -m venv") else ""


def shortened(command: str) -> str:
    """The command as it is typed: with the smallest budget where the page names none or a longer one, and
    with one seed (and one method, for another launcher) of a study."""
    if command.endswith("nox -s run"):
        return f"{command} -- budget=smoke"
    if "sweep=" in command and command.startswith("python -m sage"):
        few = "hydra.sweeper.n_trials=4 hydra.sweeper.seeds=[0] budget=smoke"
        return f"{command} {few}"
    if not _TRAINS.match(command):
        return command
    command = re.sub(r"budget=short\b", "budget=smoke", command)
    more = [] if re.search(r"\b(budget|trainer\.steps)=", command) else ["budget=smoke"]
    if "study=mine" in command:  # the page's own, small as it is
        return command
    if "study=" in command and "seed=" not in command:
        more.append("seed=0")
        if launcher := re.search(r"hydra/launcher=(\w+)", command):
            more[-1:] = [f"seed={1 + len(launcher[1])}", "method=opd"]  # runs that no other line has done
    return " ".join([command, *more])
