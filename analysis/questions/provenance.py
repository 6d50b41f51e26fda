"""How the report was made, from which code, machine and runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.questions.asked import Asked

if TYPE_CHECKING:
    from analysis.records import Records
    from analysis.report.section import Brief, Section

OPTIONS = {
    "baseline": "baseline",
    "metric": "metric",
    "draws": "bootstrap draws",
    "level": "confidence level",
    "seed": "seed",
    "average": "average over games",
    **{name: name for name in ("env", "split", "source", "step", "games")},
}
"""Fields of the question, as the report names them."""


def section(part: Section, records: Records, brief: Brief) -> None:
    """Provenance."""
    import pandas as pd

    from analysis.summary import run_list

    values = {title: getattr(brief.question, name) for name, title in OPTIONS.items()}
    if brief.question.leave_out:
        values["leave_out"] = " ".join(brief.question.leave_out)
    said = [{"option": name, "value": str(value)} for name, value in values.items() if value is not None]
    part.table("settings", pd.DataFrame(said), "How this report was made")
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
        part.table("code", made, "Code, machine and games of the runs")
    part.table("runs", run_list(records), "Every run that was found", folded=True)


ASKED = Asked(title="Provenance", section=section, rank=100)
