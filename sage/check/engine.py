"""What plays is what trains: the engine's incremental decoding against the model's plain forward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sage.check.page import Line, fine, refused, warning

if TYPE_CHECKING:
    from sage.check.pair import Subject


def engine(subject: Subject) -> Iterator[Line]:
    """One line for each model that decodes: the student, and the teacher as judge or player."""
    from sage.policy.decoding.engine import engine_report
    from sage.teacher.elsewhere import RemoteTeacher, Teacher

    how = subject.config
    models: dict[str, Teacher] = {"student": subject.student}
    if subject.models is not None:
        models["teacher"] = subject.models.teacher
    for role, lm in models.items():
        if isinstance(lm, RemoteTeacher):
            yield fine(f"The teacher replies elsewhere ({lm.name}).")
            continue
        if role == "student" and how.rollout.decoder == "vllm":
            yield warning(
                "The student would play through vLLM, which is not looked at here; below is the engine "
                "auto takes."
            )
        report = engine_report(lm, how.speed.engine)
        finding = f"The {role}'s {report.finding()}"
        if report.equal:
            yield fine(f"{finding}.")
        else:
            yield refused(f"{finding}; use speed.engine=auto, or another model where it is auto already.")
