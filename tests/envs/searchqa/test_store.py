"""Question sets on disk, generated and official: exact, hashed, refused when changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sage.config.load import load
from sage.envs.manifest import MissingData
from sage.envs.pool import EnvPool, PoolStep
from sage.envs.searchqa.encyclopedia import word_split
from sage.envs.searchqa.official import SETS
from sage.envs.searchqa.question import read_questions
from sage.envs.searchqa.retrieval.passage import read_corpus
from sage.envs.searchqa.settings import SearchqaSettings
from sage.errors import ConfigError

SMALL = ["env.generated.train=30", "env.generated.evaluation=12", "env.generated.passages=80"]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path_factory.mktemp("cache")))


def settings(*overrides: str) -> SearchqaSettings:
    env = load(["env=searchqa", *overrides]).env
    assert isinstance(env, SearchqaSettings)
    return env


# Generated ----------------------------------------------------------------------------------------------


def test_the_default_set_has_500_questions_for_each_number_of_hops() -> None:
    env = load(["env=searchqa"])
    assert env.evaluation.splits == ["valid_1hop", "valid_2hop", "valid_3hop"]
    for split in ("valid", "test"):
        for hops in (1, 2, 3):
            tasks = env.env.tasks(f"{split}_{hops}hop")
            assert len(tasks) == len({task.sha256 for task in tasks}) == 500
            assert {task.task_type for task in tasks} == {f"{hops}hop"}
            assert {task.source for task in tasks} == {"generated"}
    train = env.env.tasks("train")
    assert [sum(t.task_type == f"{h}hop" for t in train) for h in (1, 2, 3)] == [1000, 1000, 1000]


def test_the_sets_on_disk_share_no_name() -> None:
    env = settings(*SMALL)
    for split in ("train", "valid_2hop", "test_3hop"):
        for question in read_questions(Path(env.tasks(split)[0].path.rpartition("#")[0])).values():
            for title in (*question.gold, *question.answers):
                invented = [w for w in title.split() if w[:3].istitle() and len(w) in (5, 6)]
                named = {word_split(w) for w in invented} - {"?"}
                assert split.split("_")[0] in named


def test_the_digest_is_of_questions_and_passages_and_nothing_else() -> None:
    env = settings(*SMALL)
    digest = env.manifest_digest(["train", "test_1hop"])
    assert digest == settings(*SMALL, "env.topk=2").manifest_digest(["test_1hop", "train"])
    assert digest != env.manifest_digest(["train"])
    assert digest != settings(*SMALL, "env.generated.seed=1").manifest_digest(["train", "test_1hop"])
    corpus = Path(env.tasks("train")[0].path.rpartition("#")[0]).with_name("corpus.jsonl")
    assert len(read_corpus(corpus)) == 80 + 80 + 240
    corpus.write_text(corpus.read_text().replace("painter", "printer"))
    assert digest != env.manifest_digest(["train", "test_1hop"])


def test_a_changed_question_is_refused_and_so_is_an_unknown_split() -> None:
    env = settings(*SMALL)
    with pytest.raises(MissingData, match="splits are: train, valid_1hop"):
        env.tasks("valid_seen")
    file = Path(env.tasks("test_1hop")[0].path.rpartition("#")[0])
    file.write_text(file.read_text().replace("Who", "Whom", 1))
    read_questions.cache_clear()
    with pytest.raises(MissingData, match="were changed"):
        env.tasks("test_1hop")
    read_questions.cache_clear()


def play_all(env: SearchqaSettings, workers: int) -> list[Any]:
    """What every episode of two sets shows when three words of the question are searched for."""
    tasks = [*env.tasks("valid_2hop"), *env.tasks("train")[:12]]
    seen = []
    with EnvPool(env.make, workers, 60, distances=True) as pool:
        results = pool.reset_many(enumerate(tasks))
        goals = {slot: result.goal for slot, result in results.items() if isinstance(result, PoolStep)}
        assert len(goals) == len(tasks)
        seen.append(list(results.values()))
        for turn in range(3):
            actions = [(slot, f"search[{goal.split()[-1 - turn]}]") for slot, goal in goals.items()]
            seen.append(list(pool.step_many(actions).values()))
        answers = [(slot, f"answer[{goal}]") for slot, goal in goals.items()]
        seen.append(list(pool.step_many(answers).values()))
    return seen


def test_same_episodes_in_one_process_and_in_a_pool_of_four() -> None:
    env = settings(*SMALL)
    alone = play_all(env, 0)
    assert all(isinstance(result, PoolStep) for results in alone for result in results)
    assert play_all(env, 4) == alone


def test_settings_that_cannot_be_used_are_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"env\.retriever='e5' is not one of bm25, dense, http"):
        settings("env.retriever=e5")
    with pytest.raises(ConfigError, match=r"passages=50 is too small .* it allows 900 and 100\."):
        settings("env.generated.passages=50")
    with pytest.raises(ConfigError, match=r"env\.retrievers\.name='bm52' is not known.*Did you mean 'bm25'"):
        settings("env.retrievers.bm25.name=bm52")


# Official -----------------------------------------------------------------------------------------------


def write_official(folder: Path) -> None:
    """Small files of the FlashRAG sets' layout and format: splits as there, metadata of different shapes."""
    sizes = {
        "nq": {"train": 40, "dev": 5, "test": 20}, "triviaqa": {"train": 5, "test": 9}, "popqa": {"test": 9},
        "hotpotqa": {"train": 30, "dev": 11}, "2wikimultihopqa": {"train": 5, "dev": 9},
        "musique": {"train": 5, "dev": 9}, "bamboogle": {"test": 4},
    }
    assert tuple(sizes) == SETS
    for name, splits in sizes.items():
        (folder / name).mkdir()
        for split, size in splits.items():
            rows = []
            for i in range(size):
                row: dict[str, Any] = {
                    "id": f"{split}_{i}", "question": f"{name} {split} question {i}?",
                    "golden_answers": [f"answer {i}", f"Answer the {i}th"],
                }
                if name in ("hotpotqa", "2wikimultihopqa"):
                    support = {"title": ["Alpha", "Beta", "Alpha"], "sent_id": [0, 1, 2]}
                    row["metadata"] = {"type": "bridge", "supporting_facts": support}
                elif name == "musique":
                    row["metadata"] = {"answerable": True}
                rows.append(json.dumps(row))
            (folder / name / f"{split}.jsonl").write_text("\n".join(rows) + "\n")


@pytest.fixture
def official(tmp_path: Path) -> list[str]:
    pytest.importorskip("datasets")
    data = tmp_path / "flashrag"
    data.mkdir()
    write_official(data)
    corpus = tmp_path / "wiki.jsonl"
    corpus.write_text(json.dumps({"id": "0", "contents": '"Alpha"\nAlpha is the first letter.'}) + "\n")
    return [
        "env.questions=official", f"env.data={data}", f"env.corpus={corpus}", "env.official.train=25",
        "env.official.cap=10",
    ]


def test_official_sets_their_splits_and_their_caps(official: list[str]) -> None:
    config = load(["env=searchqa", *official])
    assert tuple(config.evaluation.splits) == SETS
    sizes = {split: len(config.env.tasks(split)) for split in config.evaluation.splits}
    assert sizes == {
        "nq": 10, "triviaqa": 9, "popqa": 9, "hotpotqa": 10, "2wikimultihopqa": 9, "musique": 9,
        "bamboogle": 4,
    }
    nq = config.env.tasks("nq")
    question = read_questions(Path(nq[0].path.rpartition("#")[0]))[nq[0].id]
    number = int(nq[0].id.split("/")[1])
    assert question.text == f"nq test question {number}?"
    assert question.answers == (f"answer {number}", f"Answer the {number}th")
    assert (nq[0].source, nq[0].task_type) == ("official", "nq")
    hotpot = config.env.tasks("hotpotqa")[0]
    assert read_questions(Path(hotpot.path.rpartition("#")[0]))[hotpot.id].gold == ("Alpha", "Beta")


def test_the_training_sample_is_drawn_from_nq_and_hotpotqa_by_its_seed(official: list[str]) -> None:
    def train(*more: str) -> list[str]:
        return [task.id for task in settings(*official, *more).tasks("train")]

    first = train()
    assert len(first) == len(set(first)) == 25
    assert {task.split("/")[1] for task in first} == {"nq", "hotpotqa"}
    assert train() == first
    assert train("env.official.seed=1") != first
    assert {t.split("/")[1] for t in train("env.official.train_sets=[musique]")} == {"musique"}


def test_an_official_episode(official: list[str]) -> None:
    env = settings(*official)
    env.prepare()
    made = env.make()
    made.reset(env.tasks("hotpotqa")[0])
    assert made.expert_distance() == 3
    assert made.step("search[first letter]").observation == "Doc 1(Title: Alpha) Alpha is the first letter."
    assert made.expert_distance() == 2
    made.reset(env.tasks("nq")[0])
    assert (made.expert_distance(), made.expert_action()) == (None, None)  # NQ names no support
    number = int(env.tasks("nq")[0].id.split("/")[1])
    assert made.step(f"answer[Answer {number}TH]").won


def test_official_questions_that_cannot_be_had(official: list[str], tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="is no folder"):
        settings("env.questions=official", f"env.data={tmp_path / 'none'}").tasks("nq")
    with pytest.raises(MissingData, match=r"env\.corpus is not set"):
        settings(*official, "env.corpus=null").prepare()
    settings(*official, "env.corpus=null", "env.retriever=http").prepare()  # the server has the passages
    with pytest.raises(MissingData, match="popqa has no train split"):
        settings(*official, "env.official.train_sets=[popqa]").tasks("nq")
    (tmp_path / "flashrag" / "bamboogle" / "test.jsonl").unlink()
    with pytest.raises(MissingData, match="holds no bamboogle"):
        settings(*official).tasks("nq")


def test_without_a_network_the_hub_is_named_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def refuse(*args: object, **kwargs: object) -> None:
        raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(MissingData, match="nq cannot be read from RUC-NLPIR/FlashRAG_datasets"):
        settings("env.questions=official").tasks("nq")
