"""A small real environment: every answer is judged by its bytes; some tasks cannot be loaded."""

from __future__ import annotations

from sage.config.prompt_texts import PromptStyle
from sage.envs.base import EnvironmentFault, Step
from sage.episode import Failure, Task

STYLE = PromptStyle(
    system="",
    demonstration="",
    first_turn="{scene} {goal}",
    turn="{observation}",
    stop="",
    unparsed="Say something.",
    thought_pattern=r"\A(.)",
    action_pattern=r"([^\s].*)",
    answer="{action}",
    judge_system="",
    judge="{goal} {observation} {action}",
    admissible=0,
)


class Letters:
    """An action holding a letter of the task's id does something; three of them win."""

    def __init__(self) -> None:
        self.goal = ""
        self.found = 0

    def reset(self, task: Task) -> Step:
        if task.path == "broken":
            raise EnvironmentFault(f"{task.id} cannot be loaded.")
        self.goal, self.found = f"Find {task.id}.", 0
        return Step(f"Room {task.id}.")

    def step(self, action: str) -> Step:
        if sum(map(ord, action)) % 3 == 0:
            return Step("Nothing happens.", failure=Failure.NO_EFFECT, score=self.found)
        self.found += 1
        won = self.found == 3
        return Step(f"Found {self.found}.", done=won, won=won, score=self.found, reward=1.0)

    def expert_distance(self) -> int | None:
        return 3 - self.found

    def expert_action(self) -> str | None:
        return "a"

    def close(self) -> None:
        pass


def tasks(count: int, broken: tuple[int, ...] = ()) -> list[Task]:
    return [
        Task(f"t{i}", "letters", "train", "find", "test", path="broken" if i in broken else "")
        for i in range(count)
    ]
