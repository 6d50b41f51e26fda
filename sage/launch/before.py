"""`python -m sage.launch.before`: what needs no weights and is wrong with the runs of a multirun, told once.

A multirun's parent imports neither torch nor a model, so it asks this process before the first run starts.
Requests come as JSON lines on stdin, as those of `sage.launch.child` do; where a run is refused, the exit
code is 2 and the last line of stdout a JSON object about the first one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sage.errors import ConfigError
from sage.launch.execute import EXIT_CONFIG, refuse

if TYPE_CHECKING:
    from sage.launch.row import Row

_COMMAND = (sys.executable, "-m", "sage.launch.before")
_NO_MATTER = ("seed", "name", "method", "tracking", "confidence", "normalization", "curriculum", "pretrain")
"""Settings that nothing here looks at."""


def refuse_before(rows: Sequence[Row]) -> None:
    """Raises ConfigError where one of the runs is refused. Runs that differ only in what does not matter are
    one; those whose models ship with the package are left to their own processes, since nothing is amiss
    with their files, and theirs are ready sooner than this one would answer."""
    asked: dict[str, Row] = {}
    for row in rows:
        config = row.config
        if all(model.path.startswith("sage://") for model in (config.student, config.teacher)):
            continue
        kept = {
            name: value for name, value in config.model_dump(mode="json").items() if name not in _NO_MATTER
        }
        asked.setdefault(json.dumps(kept, sort_keys=True), row)
    if not asked:
        return
    lines = [json.dumps({"name": r.name, "config": r.config.model_dump(mode="json")}) for r in asked.values()]
    done = subprocess.run(
        _COMMAND, input="\n".join(lines) + "\n", stdout=subprocess.PIPE, encoding="utf-8", check=False
    )
    if done.returncode == EXIT_CONFIG and done.stdout.strip():
        found = json.loads(done.stdout.splitlines()[-1])
        raise ConfigError(f"Nothing was started: in the run {found['name']!r}, {found['error']}")


def _first_refusal(requests: Sequence[dict[str, Any]]) -> dict[str, str] | None:
    from sage.config.validate import validate

    for request in requests:
        try:
            refuse(validate(request["config"]))
        except ConfigError as error:
            return {"name": request["name"], "error": str(error)}
    return None


def main() -> int:
    from sage.redaction import guard_streams

    guard_streams()
    found = _first_refusal([json.loads(line) for line in sys.stdin])
    if found is None:
        return 0
    print(json.dumps(found))
    return EXIT_CONFIG


if __name__ == "__main__":
    sys.exit(main())
