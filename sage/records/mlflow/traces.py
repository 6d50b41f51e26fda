"""Episodes as MLflow's traces: one trace an episode, one span a turn."""

from __future__ import annotations

from typing import Any

from sage.records.loggers.curves import step_times
from sage.records.loggers.samples import sampled_episodes, trace_name
from sage.records.mlflow.store import batches
from sage.records.rundir import RunDir

TURN_ATTRIBUTES = (
    "label",
    "weight",
    "confidence",
    "effective_weight",
    "failure",
    "judge_reply",
    "oracle",
    "divergence",
    "teacher_entropy",
    "expert_distance_before",
    "expert_distance_after",
    "answer_tokens",
    "truncated",
)


class Traces:
    """Those of one MLflow run."""

    def __init__(self, client: Any, run: RunDir, uri: str, experiment: str, run_id: str) -> None:
        self._client, self.run, self._uri = client, run, uri
        self._experiment, self._id = experiment, run_id

    def send(self, each: int) -> None:
        """Up to `each` won and lost episodes of a phase; those already there are left alone. Raises
        RuntimeError where some did not arrive."""
        import mlflow

        episodes = sampled_episodes(self.run, each)
        if not episodes:
            return
        mlflow.set_tracking_uri(self._uri)  # tracing knows no other way to be told
        present = self._present()
        for episode in episodes:
            if trace_name(episode) not in present:
                self._send(episode)
        missing = len({trace_name(episode) for episode in episodes} - set(self._present()))
        if missing:
            raise RuntimeError(f"{missing} of {len(episodes)} traces did not arrive")

    def _present(self) -> dict[str, str]:
        """Trace ids by episode."""
        traces = self._client.search_traces(
            locations=[self._experiment], run_id=self._id, include_spans=False, max_results=500
        )
        return {trace.info.tags.get("sage.episode", ""): trace.info.trace_id for trace in traces}

    def delete(self) -> None:
        """All of the run's."""
        ids = list(self._present().values())
        for batch in batches(ids, 100):
            self._client.delete_traces(self._experiment, trace_ids=batch)

    def _send(self, episode: dict[str, Any]) -> None:
        client = self._client
        turns = episode.pop("played")
        start = 1_000_000 * step_times(self.run).get(episode["step"], 0)
        # Turns are not timed one by one; equal shares keep them in order and the sum true.
        share = int(1e9 * (episode["seconds"] or 0.0) / max(1, len(turns)))
        keys = ("phase", "step", "split", "task", "task_type", "rollout", "method", "seed")
        root = client.start_trace(
            name=f"{episode['status']}: {episode['goal'] or episode['task']}"[:200],
            span_type="AGENT",
            inputs={"goal": episode["goal"], "scene": episode["scene"]},
            attributes={name: episode[name] for name in keys},
            tags={"sage.episode": trace_name(episode)} | {n: episode[n] for n in ("status", "phase")},
            experiment_id=self._experiment,
            start_time_ns=start,
            run_id=self._id,
        )
        for i, turn in enumerate(turns):
            span = client.start_span(
                name=f"turn {turn['turn']}" + (f" {turn['label']}" if turn["label"] else ""),
                trace_id=root.trace_id,
                parent_id=root.span_id,
                span_type="TOOL",
                inputs={"observation": turn["observation"]},
                attributes={name: turn[name] for name in TURN_ATTRIBUTES if turn[name] is not None},
                start_time_ns=start + i * share,
            )
            client.end_span(
                trace_id=root.trace_id,
                span_id=span.span_id,
                outputs={name: turn[name] for name in ("thought", "action", "feedback")},
                end_time_ns=start + (i + 1) * share,
            )
        client.end_trace(
            root.trace_id,
            outputs={name: episode[name] for name in ("status", "won", "score", "turns")},
            end_time_ns=start + len(turns) * share,
        )
