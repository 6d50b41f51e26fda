"""What was pre-registered, first and apart."""

from __future__ import annotations

from analysis.load import Records
from analysis.plan import detectables, frozen_path
from analysis.plan_check import check
from analysis.plan_test import confirmatory
from analysis.report.section import Options, Section


def fill(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    """Fill the section."""
    if options.plan is None:
        section.tag = "exploratory"
        section.say(
            "No plan was given, so everything in this report is exploratory: its p values help to choose "
            "what to test next and confirm nothing."
        )
        return
    conditions = check(options.plan, records)
    met = bool(conditions["met"].all())
    section.tag = "confirmatory" if met else "exploratory"
    section.say(
        f"{options.plan.content['title']}. Plan {options.plan.path.name}, hash {options.plan.sha256[:12]}, "
        f"{'frozen' if frozen_path(options.plan.path).exists() else 'not frozen'}. Estimand: "
        f"{options.plan.content['estimand']}. A result is confirmatory only if every condition below is met."
    )
    section.table("plan_conditions", conditions, "Conditions of a confirmatory result")
    section.table("plan_power", detectables(options.plan), "What the plan can see under its own assumptions")
    result = confirmatory(options.plan, records, options.draws, options.seed)
    section.table("plan_hypotheses", result, "Hypotheses as planned, Holm over all of them")
