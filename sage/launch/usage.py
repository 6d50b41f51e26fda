"""`python -m sage --help`: what can be typed, and every option of every config group with its first comment.

Our own page: Hydra's takes seconds for a config of this size, and does not say what an option means.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

_NO_GROUPS = ("accelerate", "plan")
"""Folders of files that other programs read: `accelerate launch` and `python -m analysis`."""

HEAD = """\
sage: selective on-policy distillation of LLM agents.

  python -m sage                                      one run: evaluate, distil, evaluate
  python -m sage method=opd seed=1                    another preset, another seed
  python -m sage -m method=opd,sage_opd seed=0,1,2    many runs, each in its own process
  python -m sage list method=opd,sage_opd seed=0,1,2  list them with their states, run nothing
  python -m sage -m study=table4                      the runs that a study file declares
  python -m sage -m study=table4 hydra/launcher=ray   on a cluster: ray, submitit_slurm
  python -m sage -m sweep=confidence_threshold        an Optuna study of runs
  python -m sage confirm sweep=confidence_threshold   its winner against its rivals, fresh seeds and games
  python -m sage task=evaluate student.path=DIR       evaluation only, of a model of one's own
  python -m sage check student.path=A teacher.path=B  are these models right for a run? one page
  python -m sage teacher start teacher.path=MODEL     a teacher for many runs, on Ray (also status, stop)
  python -m sage view runs/                           runs, trajectories, tokens in a browser
  python -m sage --cfg job                            print the whole config, run nothing

  key=value changes one setting, group=option a whole group. --config-dir DIR finds YAML of one's own.
  --hydra-help lists Hydra's flags. A finished run is not repeated: the same line again goes on where it was.
"""


def help_text(arguments: Sequence[str] = ()) -> str:
    """The help page; with `--config-dir DIR` among the arguments, its options are listed too."""
    from sage.config.components import conf_dir
    from sage.config.installed import folders as installed

    theirs = [folder for _, folder in installed()]
    folders = [conf_dir(), *theirs, *(Path(a) for a in _config_dirs(arguments) if Path(a).is_dir())]
    groups: dict[str, dict[str, str]] = {}
    for folder in folders:
        for path in sorted(folder.glob("*/*.yaml")):
            if path.parent.name in _NO_GROUPS:
                continue
            groups.setdefault(path.parent.name, {})[path.stem] = _first_comment(path)
    lines = [HEAD]
    for group, options in sorted(groups.items()):
        lines.append(group)
        lines += [f"  {f'{group}={option}':<32} {text}".rstrip() for option, text in options.items()]
    return "\n".join(lines)


def _config_dirs(arguments: Sequence[str]) -> list[str]:
    found = [a.partition("=")[2] for a in arguments if a.startswith("--config-dir=")]
    return found + [b for a, b in pairwise(arguments) if a in ("--config-dir", "-cd")]


def _first_comment(path: Path) -> str:
    """The file's first sentence about itself; directives of Hydra are not that."""
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            words.append(line.lstrip("# "))
    text = " ".join(words)
    return text.partition(". ")[0].rstrip(".")
