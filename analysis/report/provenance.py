"""How the report was made, from which code, machine and runs."""

from __future__ import annotations

import pandas as pd

from analysis.load import Records
from analysis.report.section import Options, Section
from analysis.summary import run_list


def fill(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    """Fill the section."""
    settings = {
        "baseline": options.baseline,
        "metric": options.metric,
        "bootstrap draws": options.draws,
        "confidence level": options.level,
        "seed": options.seed,
        "average over games": options.average,
        **{name: value for name, value in options.choice.items() if value is not None},
    }
    if options.choice.get("leave_out"):
        settings["leave_out"] = " ".join(options.choice["leave_out"])
    section.table(
        "settings",
        pd.DataFrame([{"option": k, "value": str(v)} for k, v in settings.items()]),
        "How this report was made",
    )
    rows = []
    for run, data in sorted(records.provenance.items()):
        code, machine = data.get("code") or {}, data.get("machine") or {}
        rows.append(
            {
                "commit": str(code.get("commit") or "")[:12],
                "dirty": code.get("dirty"),
                "version": code.get("version"),
                "python": data.get("python"),
                "cpu": machine.get("cpu"),
                "games": str(data.get("manifest_digest") or "")[:12],
                "run": run,
            }
        )
    if rows:
        frame = pd.DataFrame(rows)
        keys = [name for name in frame if name != "run"]
        made = frame.groupby(keys, dropna=False, sort=True)["run"].size().rename("runs").reset_index()
        section.table("code", made, "Code, machine and games of the runs")
    section.table("runs", run_list(records), "Every run that was found", folded=True)
