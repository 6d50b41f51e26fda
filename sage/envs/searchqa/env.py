"""SearchQA as an `Environment`: search, read, search again, answer once.

An action is `search[query]` or `answer[text]`. What else may happen, each with its own outcome:

| the agent | the observation says | `Failure` | counts as a search |
|---|---|---|---|
| searches and something is found | the passages | NONE | yes |
| searches and nothing is found | nothing was found | TOOL | yes |
| searches once more than allowed | no searches left | NO_EFFECT | no |
| gives an empty query or answer, two actions, or something else | what an action is | SCHEMA | no |
| answers | that it has; the episode is over | NONE | no |

An answer of the model without any action never comes here (the rollout calls it UNPARSED), and one that never
answers runs out of turns: `turn_budget`, score 0. A retriever that cannot be asked is an EnvironmentFault.
The score is the answer's F1 (0 to 1); `won` is exact match.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from sage.envs.base import EnvironmentFault, Step
from sage.envs.searchqa.question import Question, read_questions
from sage.envs.searchqa.retrieval.base import Retriever
from sage.envs.searchqa.retrieval.passage import Passage
from sage.envs.searchqa.score import exact_match, f1, normalise
from sage.episode import Failure, Task

_ACTION = re.compile(r"\s*(search|answer)\s*\[(.*)\]\s*", re.DOTALL | re.IGNORECASE)
_SECOND = re.compile(r"\][\s,;]*(?:and|then)?\s*(?:search|answer)\s*\[", re.IGNORECASE)

NOTHING_FOUND = "Nothing was found."
NO_SEARCHES_LEFT = "No searches are left; answer now."
MALFORMED = "Not an action. One action per turn: search[query] or answer[text]."
ANSWERED = "The answer has been given."
"""Says nothing about right or wrong: the judge reads it, and must not learn the outcome from it."""


def parse_action(action: str) -> tuple[str, str] | None:
    """(`search` or `answer`, its non-empty text), None where it is not exactly one such action."""
    found = _ACTION.fullmatch(action)
    if found is None or not found[2].strip() or _SECOND.search(found[2]):
        return None
    return found[1].lower(), found[2].strip()


def show(passages: list[Passage]) -> str:
    """Passages as the agent reads them, in Search-R1's format."""
    return "\n".join(f"Doc {i}(Title: {p.title}) {p.text}" for i, p in enumerate(passages, start=1))


class SearchqaEnvironment:
    """One question at a time. `open_retriever` is called at the first reset; its result may be shared."""

    def __init__(self, open_retriever: Callable[[], Retriever], topk: int, max_searches: int) -> None:
        self.goal = ""
        self.topk, self.max_searches = topk, max_searches
        self._open = open_retriever
        self._retriever: Retriever | None = None
        self._question: Question | None = None
        self._clear()

    def _clear(self) -> None:
        self.searches = 0
        self.found: set[str] = set()
        """Normalised titles of all passages shown so far."""
        self._shown: list[str] = []
        self._answered: bool | None = None

    @property
    def question(self) -> Question:
        """Raises EnvironmentFault before the first reset."""
        if self._question is None:
            raise EnvironmentFault("The SearchQA environment was used before reset.")
        return self._question

    def reset(self, task: Task) -> Step:
        """Start `task`, whose path is `<file of questions>#<id>`.

        Raises EnvironmentFault where the file does not hold it or the retriever cannot be opened.
        """
        file, _, name = task.path.rpartition("#")
        try:
            question = read_questions(Path(file))[name]
        except (OSError, ValueError) as error:
            raise EnvironmentFault(f"The questions in {file} cannot be read: {error}") from error
        except KeyError:
            raise EnvironmentFault(f"There is no question {name!r} in {file}.") from None
        return self.begin(question)

    def begin(self, question: Question) -> Step:
        """Start `question`, wherever it comes from."""
        if self._retriever is None:
            self._retriever = self._open()
        self._question = question
        self._clear()
        self.goal = question.text
        self._shown.append(question.text)
        return Step(f"You can search {self.max_searches} times.")

    def step(self, action: str) -> Step:
        """Execute one action; see the table above.

        Raises EnvironmentFault where the retriever cannot be asked.
        """
        question = self.question
        if self._answered is not None:
            raise EnvironmentFault("The episode is over; reset the environment.")
        parsed = parse_action(action)
        if parsed is None:
            return Step(MALFORMED, failure=Failure.SCHEMA)
        verb, text = parsed
        if verb == "answer":
            self._answered = exact_match(text, question.answers)
            score = f1(text, question.answers)
            return Step(ANSWERED, (), score, score, True, self._answered)
        if self.searches >= self.max_searches:
            return Step(NO_SEARCHES_LEFT, failure=Failure.NO_EFFECT)
        assert self._retriever is not None
        passages = self._retriever.search(text, self.topk)
        self.searches += 1
        if not passages:
            return Step(NOTHING_FOUND, failure=Failure.TOOL)
        self.found.update(normalise(passage.title) for passage in passages)
        self._shown.append(show(passages))
        return Step(self._shown[-1])

    def missing(self) -> list[str]:
        """Titles of the gold passages that no search has returned yet, in their order."""
        return [title for title in self.question.gold if normalise(title) not in self.found]

    def expert_distance(self) -> int | None:
        """Missing gold passages, and one for the answer; 0 after the right answer.

        None after a wrong one (the goal is out of reach), and where the set names no gold passages.
        """
        if not self.question.gold or self._answered is False:
            return None
        return 0 if self._answered else len(self.missing()) + 1

    def expert_action(self) -> str | None:
        """Search for the first missing gold passage whose title has been read; answer when none is missing.

        None where the set names no gold passages, or the next title has not been read yet.
        """
        if not self.question.gold or self._answered is not None:
            return None
        missing = self.missing()
        if not missing:
            return f"answer[{self.question.answers[0]}]"
        if self.searches >= self.max_searches:
            return None
        read = f" {normalise(' '.join(self._shown))} "
        known = next((title for title in missing if f" {normalise(title)} " in read), None)
        return None if known is None else f"search[{known}]"

    def close(self) -> None:
        """Forget the episode; the object can be reset again."""
        self._question = None
        self._clear()
