"""Write docs/reference/records.md from the columns that sage/records/schema.py declares.

    python docs/make_records.py           # writes the page
    python docs/make_records.py --check   # exit code 1 where the page is not what this would write
"""

from __future__ import annotations

import sys

from generated import DOCS, row, write_or_check

from sage.records.schema import RECORDS_FORMAT, TABLES

PAGE = DOCS / "reference" / "records.md"

HEAD = f"""\
# Records: every table and column

Written by `python docs/make_records.py` from `sage/records/schema.py`; a test keeps it current. Change that.

A run is `runs/<id>/attempt_<n>/`, and each table is one Parquet file in it; while the run goes on, its
batches lie below `parts/`. This is format version {RECORDS_FORMAT}: a new column keeps the version, another
meaning of one raises it. A missing value is null, never a magic number.

```python
import pandas as pd
turns = pd.read_parquet("runs/<id>/attempt_1/turns.parquet")
```

`python -m analysis` reads them with everything that tells runs apart (docs/guide/analysis.md). Beside them
lie `run.json` (what the id is made of), `config.yaml`, `status.json`, `provenance.json`, `summary.json`,
`log.txt` and checkpoints.
"""

ONE_ROW = {
    "turns": "One row for each turn that was played, in training and in evaluation.",
    "episodes": "One row for each episode, in training and in evaluation.",
    "steps": "One row for each optimizer step.",
    "tokens": (
        "One row for each student token of a sample of each step's training episodes (`trainer.log_tokens`). "
        "The mean over a turn's tokens is the turn's own number. Records of older versions have no such file."
    ),
}


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    for table, columns in TABLES.items():
        lines += [f"## {table}.parquet", "", ONE_ROW[table], "", row(["column", "type", "what it is"])]
        lines.append("|---|---|---|")
        lines += [row([f"`{name}`", kind, text]) for name, (kind, text) in columns.items()]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, page()))
