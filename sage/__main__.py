"""How to run it:

    python -m sage                                       one run
    python -m sage method=opd trainer.steps=2            another preset, another value
    python -m sage -m method=opd,sage_opd seed=0,1,2     many runs, each in its own process
    python -m sage list method=opd,sage_opd seed=0,1,2   list them with their states, run nothing
    python -m sage check student.path=DIR …              is this pair of models right? one page, run nothing
    python -m sage teacher start teacher.path=DIR …      a teacher for many runs, on Ray; also status, stop
    python -m sage view runs/                            look at runs, trajectories and tokens in a browser
    python -m sage --help
    python -m sage --version

`sage`, where the package is installed, is the same, and `sage analysis …` is `python -m analysis …`.
Nothing heavy is imported here: help, config errors and `--cfg job` answer in about a second.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sage.signals import end_at_once

if TYPE_CHECKING:
    from omegaconf import DictConfig


def compose_and_run(composed: DictConfig) -> float | None:
    """Hydra's task function: one run."""
    from sage.launch.cli import run_task

    return run_task(composed)


def analyse(words: list[str]) -> int:
    """`sage analysis …`: the package beside this one, whatever `analysis.py` lies in the working folder."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from analysis.cli import main as asked

    return asked(words)


def main() -> None:
    from sage.launch.access import open_to
    from sage.redaction import guard_streams

    guard_streams()
    end_at_once()
    open_to("owner")  # until the config says otherwise
    if sys.argv[1:] == ["--version"]:
        from sage import __version__

        print(f"sage-opd {__version__}")
        return
    if sys.argv[1:2] == ["analysis"]:
        sys.exit(analyse(sys.argv[2:]))
    if sys.argv[1:2] == ["view"]:
        from sage.view.cli import main as view

        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for mlflow:…, which `analysis` reads
        sys.exit(view(sys.argv[2:]))
    if {"-h", "--help"} & set(sys.argv[1:]):
        from sage.launch.usage import help_text

        print(help_text(sys.argv[1:]))
        return

    import hydra

    from sage.config.components import conf_dir
    from sage.launch.cli import guarded

    entry = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    sys.exit(guarded(entry(compose_and_run)))


if __name__ == "__main__":
    main()
