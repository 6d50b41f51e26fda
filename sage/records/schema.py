"""The columns of the record tables: format version 1, written by `sage.records`, read by `analysis`.

Types are Arrow type names. A missing value is null, never a magic number. Adding a column keeps the
version; changing a column's meaning raises it.
"""

from __future__ import annotations

RECORDS_FORMAT = 1

_RUN = {
    "run": ("string", "run id: the digest's first 12 characters"),
    "method": ("string", "the run's name: its preset and what differs from it"),
    "env": ("string", "environment name"),
    "source": ("string", "where the game came from: official, generated, ..."),
    "seed": ("int64", "run seed"),
}

_EPISODE_KEY = {
    "phase": (
        "string",
        "train, eval, (turns only) given: played by a curriculum's teacher, (set_aside/ only) failed",
    ),
    "step": ("int64", "optimizer steps done when the episode was played"),
    "split": ("string", "train, valid_seen, valid_unseen, ..."),
    "task": ("string", "task id, unique within (env, source)"),
    "task_type": ("string", "environment's task type"),
    "rollout": ("int64", "rollout index within the task"),
}

EPISODES: dict[str, tuple[str, str]] = {
    **_RUN,
    **_EPISODE_KEY,
    "status": ("string", "won, lost, turn_budget, context_full, env_error, policy_error"),
    "ok": ("bool", "true where the status says something about the agent"),
    "won": ("bool", "null where not ok"),
    "score": ("float64", "environment's own score; null where not ok"),
    "turns": ("int64", "turns played"),
    "given_turns": ("int64", "turns before them that a curriculum's teacher played"),
    "answer_tokens": ("int64", "student tokens"),
    "total_tokens": ("int64", "all tokens of the conversation"),
    "expert_distance_start": ("int64", "full-information steps to the goal at the start"),
    "goal": ("string", "the task sentence, as the judge is shown it"),
    "scene": ("string", "the initial observation, as the judge is shown it"),
    "seconds": ("float64", "wall time of the episode (episodes of a batch overlap)"),
    "retries": ("int64", "how often the model failed on a batch with it, which was played again smaller"),
    "error": ("string", "one sentence where not ok"),
    "game_sha256": ("string", "digest of the game file"),
}

TURNS: dict[str, tuple[str, str]] = {
    **_RUN,
    **_EPISODE_KEY,
    "turn": ("int64", "0-based"),
    "status": ("string", "of the episode"),
    "won": ("bool", "of the episode; null where not ok"),
    "observation": ("string", "o_t, what the agent saw before it answered"),
    "admissible": ("string", "admissible commands before the answer, one a line; null where not listed"),
    "thought": ("string", "what `thought_pattern` of the prompt style found in the answer"),
    "action": ("string", "the command that the environment was asked; empty where the answer holds none"),
    "answer": ("string", "the raw answer"),
    "answer_ids": ("string", "ids of its tokens, blanks between; null in older records"),
    "feedback": ("string", "o_{t+1}"),
    "failure": ("string", "none, empty, unparsed, schema, tool, no_effect"),
    "truncated": ("bool", "answer hit the token limit"),
    "format_slip": (
        "bool",
        "the command was inadmissible, and is admissible once markdown, capitals and full stops are "
        "stripped; null where the environment does not list its commands",
    ),
    "answer_tokens": ("int64", "|a_t|"),
    "label": ("string", "DET_FAIL, SKIP, WEAK, STRONG, FALLBACK, ALWAYS, NEVER; null in evaluation"),
    "weight": ("float64", "i_t"),
    "propensity": ("float64", "probability with which the rule draws this label"),
    "confidence": ("float64", "c_t, mean over the turn's tokens"),
    "effective_weight": ("float64", "Z s_t, mean over the turn's tokens"),
    "top1": ("float64", "teacher's mean top-1 probability"),
    "teacher_entropy": ("float64", "mean, nats"),
    "teacher_logprob": ("float64", "mean log-probability of the sampled tokens under the teacher, nats"),
    "student_logprob": ("float64", "same under the student at the time of the update, nats"),
    "student_entropy": ("float64", "mean, nats"),
    "divergence": ("float64", "mean per-token divergence of the turn"),
    "judge_reply": ("string", "raw reply; null where not asked"),
    "judge_latency_s": ("float64", "share of the batched query's time"),
    "judge_cached": (
        "bool",
        "whether the reply came from `launch.judge_cache` or this run's own; null where not asked",
    ),
    "judge_tokens": ("int64", "prompt and reply tokens of the query"),
    "oracle": ("string", "progress, no_effect, harm by the environment's expert; null where unknown"),
    "expert_distance_before": (
        "int64",
        "steps to the goal by the environment's expert, before the turn; null where unknown",
    ),
    "expert_distance_after": ("int64", "same after it"),
    "teacher_spoilt": (
        "bool",
        "whether the teacher is spoilt there (teacher.spoil); null where it is spoilt nowhere, and in "
        "evaluation",
    ),
    "reward": ("float64", "environment's reward for the turn"),
    "score": ("float64", "environment's score after the turn"),
}

STEPS: dict[str, tuple[str, str]] = {
    **_RUN,
    "step": ("int64", "1-based optimizer step"),
    "loss": ("float64", "L of the spec"),
    "stepped": ("bool", "false where every turn was skipped"),
    "z": ("float64", "normalization factor Z"),
    "mean_weight": ("float64", "Σ s_t|a_t| / N"),
    "mean_divergence": ("float64", "unweighted mean per-token divergence, nats"),
    "grad_norm": ("float64", "before clipping"),
    "learning_rate": ("float64", "of this step"),
    "relative_weight_change": ("float64", "‖θ−θ₀‖/‖θ₀‖ since the start, of the weights that play"),
    "relative_master_change": (
        "float64",
        "same of the float32 masters that AdamW updates (the weights themselves in float32); null in older "
        "records",
    ),
    "episodes": ("int64", "in the batch, ok ones"),
    "episodes_not_ok": ("int64", "env_error, policy_error: they count in no rate and teach nothing"),
    "episodes_context_full": ("int64", "of the ok ones, cut by rollout.max_context"),
    "success_rate": ("float64", "of the batch's training episodes"),
    "turns": ("int64", "of the ok episodes"),
    "student_tokens": ("int64", "N"),
    "active_tokens": ("int64", "tokens with s_t > 0"),
    "teacher_tokens": ("int64", "tokens through the teacher's scoring pass"),
    "teacher_play_tokens": ("int64", "tokens through the teacher because it played"),
    "judge_queries": ("int64", "not served from the cache"),
    "judge_cached": ("int64", "turns whose reply was there already"),
    "judge_tokens": ("int64", "prompt and reply tokens of the queries"),
    "demonstration_tokens": (
        "int64",
        "student tokens of demonstrations beside the student's own episodes (rollout.demonstration)",
    ),
    "demonstration_not_ok": (
        "int64",
        "demonstrations that broke (env_error, policy_error) and taught nothing; null in older records",
    ),
    "demonstration_loss": ("float64", "their mean −log p times its weight, beside `loss`; 0 without any"),
    "share_det_fail": ("float64", "label shares over turns"),
    "share_skip": ("float64", "same"),
    "share_weak": ("float64", "same"),
    "share_strong": ("float64", "same"),
    "share_fallback": ("float64", "same: the judge said something else"),
    "seconds_rollout": ("float64", "wall time since the step before, by phase: play"),
    "seconds_judge": ("float64", "asking the judge, but while others play (`speed.judge_ahead`)"),
    "seconds_teacher": ("float64", "the teacher's scoring pass"),
    "seconds_student": ("float64", "the student's passes and the update"),
    "seconds_other": ("float64", "what no phase claimed"),
    "speed_tokens_rollout": (
        "float64",
        "student tokens a second of seconds_rollout; null (as all of `speed_`) in older records, and where "
        "there is nothing to divide by",
    ),
    "speed_tokens_judge": (
        "float64",
        "judge tokens a second of seconds_judge; says nothing with `speed.judge_ahead`",
    ),
    "speed_tokens_teacher": ("float64", "teacher tokens a second of seconds_teacher"),
    "speed_tokens_student": ("float64", "student tokens a second of seconds_student"),
    "speed_peak_rollout": (
        "float64",
        "most memory in use during the phase, GiB: on a GPU what torch has given out on the student's "
        "device, on Linux without one what the process holds; of the main process, as all that follows",
    ),
    "speed_peak_judge": ("float64", "same"),
    "speed_peak_teacher": ("float64", "same"),
    "speed_peak_student": ("float64", "same"),
    "speed_matrix_teacher": (
        "float64",
        "share of the device's rate of matrix products (`speed.matrix_rate`) that the scoring pass reached: "
        "2 operations a weight and token, and the products of causal attention, over its seconds",
    ),
    "speed_matrix_student": (
        "float64",
        "same of the student's passes, three times as many where there is a gradient; what is computed "
        "twice or padded counts once",
    ),
    "speed_memory_rollout": (
        "float64",
        "share of the device's memory rate (`speed.memory_rate`) that decoding reached: the weights once a "
        "forward, and the live keys and values, over the whole rollout's seconds; null where vLLM decodes",
    ),
    "time": ("float64", "when the step was recorded, seconds since the epoch"),
}

TOKENS: dict[str, tuple[str, str]] = {
    **_RUN,
    **_EPISODE_KEY,
    "turn": ("int64", "0-based"),
    "position": ("int64", "of the token in its answer, 0-based"),
    "token": ("int64", "its id"),
    "text": (
        "string",
        "its text: those of an answer joined are the answer, a special token has its name; empty where a "
        "character goes on in the next token",
    ),
    "student_logprob": ("float64", "of the sampled token at the time of the update, nats"),
    "student_entropy": ("float64", "nats"),
    "teacher_logprob": ("float64", "of the sampled token under the teacher, nats"),
    "teacher_entropy": ("float64", "nats; null for a teacher on a server, which names its likeliest alone"),
    "divergence": ("float64", "of the token, as the loss has it"),
    "top1": ("float64", "teacher's highest probability, at the confidence rule's temperature"),
    **{
        name: (kind, text.format(rank))
        for n, rank in enumerate(("likeliest", "second", "third"), start=1)
        for name, kind, text in (
            (f"word_{n}", "string", "teacher's {} token; null where a server has not named it"),
            (f"word_{n}_p", "float64", "its probability, at temperature 1"),
        )
    },
    "confidence": ("float64", "c of the token"),
    "weight": ("float64", "Z s of the token"),
}

TABLES: dict[str, dict[str, tuple[str, str]]] = {
    "turns": TURNS,
    "episodes": EPISODES,
    "steps": STEPS,
    "tokens": TOKENS,
}
"""Every table by its file name's stem."""

RENAMED_COLUMNS = {
    "gold_tokens": "demonstration_tokens",
    "gold_not_ok": "demonstration_not_ok",
    "gold_loss": "demonstration_loss",
}
"""Old name of a column to today's; files that were written under the old one are read under the new one."""

STEPS_ALONE = ("steps", "tokens")
"""Tables to which optimizer steps alone add; an evaluation does not."""
CAME_LATER = ("tokens",)
"""Tables that older records lack."""
