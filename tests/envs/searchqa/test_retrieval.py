"""Each retriever on a real index: BM25 in memory, E5-style embeddings in FAISS, a server over HTTP."""

from __future__ import annotations

import gzip
import math
import time
from pathlib import Path

import numpy as np
import pytest

from sage.envs.base import EnvironmentFault
from sage.envs.searchqa.encyclopedia import World
from sage.envs.searchqa.retrieval.base import shared_retriever
from sage.envs.searchqa.retrieval.bm25 import Bm25, Bm25Settings, best
from sage.envs.searchqa.retrieval.dense import Dense, DenseSettings
from sage.envs.searchqa.retrieval.http import HttpRetriever, HttpSettings
from sage.envs.searchqa.retrieval.passage import Passage, read_corpus, write_corpus

PASSAGES = World("valid", 0, 60).passages()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "corpus.jsonl", PASSAGES)
    return tmp_path / "corpus.jsonl"


# The corpus file ----------------------------------------------------------------------------------------


def test_a_corpus_reads_back_as_it_was_and_gzipped_too(corpus: Path) -> None:
    assert read_corpus(corpus) == PASSAGES
    zipped = corpus.with_suffix(".jsonl.gz")
    zipped.write_bytes(gzip.compress(corpus.read_bytes()))
    assert read_corpus(zipped) == PASSAGES


def test_search_r1s_documents_are_read_with_and_without_quotes() -> None:
    assert Passage.of('"Sorem"\nSorem is a town.') == Passage("Sorem", "Sorem is a town.")
    assert Passage.of("Sorem\nA town.\nOf old.") == Passage("Sorem", "A town.\nOf old.")


def test_another_format_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"id": "0", "contents": "A\\nb"}\n{"text": "x"}\n')
    with pytest.raises(EnvironmentFault, match=r"Line 2 of .*c\.jsonl is not"):
        Bm25Settings(name="bm25", k1=1.5, b=0.75).open(tmp_path / "c.jsonl")


# BM25 ---------------------------------------------------------------------------------------------------


def test_bm25_scores_are_lucenes() -> None:
    """By hand: ln(1 + (N - n + 0.5) / (n + 0.5)) times tf / (tf + k1 (1 - b + b L / mean L))."""
    passages = [Passage("xx", "yy"), Passage("yy", "zz zz zz"), Passage("ww", "vv")]
    index = Bm25(passages, 1.2, 0.5)
    mean = (2 + 4 + 2) / 3
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    expected = [idf / (1 + 1.2 * (0.5 + 0.5 * length / mean)) for length in (2, 4)]
    scores_N = index._index.get_scores(["yy"])
    np.testing.assert_allclose(scores_N, [*expected, 0.0], rtol=1e-5)
    assert index.search("yy", 3) == passages[:2]
    assert index.search("zz", 1) == [passages[1]]


def test_bm25_finds_nothing_where_no_word_is_shared() -> None:
    index = Bm25(PASSAGES, 1.5, 0.75)
    assert index.search("qqq www", 3) == []
    assert index.search("the of", 3) == []  # stop words only
    assert index.search("?!", 3) == []


def test_bm25_finds_an_entitys_own_passage_by_its_title() -> None:
    index = Bm25(PASSAGES, 1.5, 0.75)
    assert all(p in index.search(p.title, 3) for p in PASSAGES)
    assert sum(index.search(p.title, 1) == [p] for p in PASSAGES) > 0.9 * len(PASSAGES)


def test_equal_scores_keep_the_order_of_the_corpus() -> None:
    scores_N = np.array([1, 3, 2, 3, 2, 2, 0], dtype=np.float32)
    assert best(scores_N, 4) == [1, 3, 2, 4]
    assert best(scores_N, 99) == [1, 3, 2, 4, 5, 0, 6]


# Dense --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT of random weights and a word-piece vocabulary: E5's architecture, small."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    text = " ".join(f"{p.title} {p.text}" for p in PASSAGES).lower()
    letters = sorted(set(text) | set(":"))
    pieces = [*letters, *(f"##{c}" for c in letters), *sorted({w.strip(".,") for w in text.split()})]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(pieces)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=64, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def dense(encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DenseSettings:
    pytest.importorskip("faiss")
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "cache"))
    return DenseSettings(
        name="dense", model=encoder, index=None, query_prefix="query: ", passage_prefix="passage: ",
        max_tokens=64, batch=16,
    )


def test_dense_returns_the_passages_of_highest_cosine(dense: DenseSettings, corpus: Path) -> None:
    """Against brute force; up to rounding, for texts as like as these have cosines as like."""
    index = dense.open(corpus)
    assert isinstance(index, Dense)
    vectors_ND = index.embed([f"passage: {p.title} {p.text}" for p in PASSAGES])
    np.testing.assert_allclose(np.linalg.norm(vectors_ND, axis=1), 1, rtol=1e-5)
    for query in ("Who is the mayor?", PASSAGES[7].text):
        scores_N = vectors_ND @ index.embed([f"query: {query}"])[0]
        found = [PASSAGES.index(p) for p in index.search(query, 3)]
        assert len(set(found)) == 3
        np.testing.assert_allclose(scores_N[found], np.sort(scores_N)[::-1][:3], atol=1e-6)
    assert len(index.search("x", 1000)) == len(PASSAGES)


def test_dense_pools_over_tokens_and_not_over_padding(dense: DenseSettings, corpus: Path) -> None:
    index = dense.open(corpus)
    assert isinstance(index, Dense)
    together = index.embed(["short", "a much longer text of many more words than the other one"])
    np.testing.assert_allclose(together[0], index.embed(["short"])[0], atol=1e-5)


def test_dense_embeds_a_corpus_once_and_takes_an_index_that_exists(
    dense: DenseSettings, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = dense.open(corpus).search("town", 3)
    (file,) = (tmp_path / "cache" / "indices").glob("*.faiss")

    def refuse(self: Dense, texts: list[str]) -> np.ndarray:
        assert len(texts) == 1, "the corpus was embedded again"
        return embed(self, texts)

    embed = Dense.embed
    monkeypatch.setattr(Dense, "embed", refuse)
    assert dense.open(corpus).search("town", 3) == first
    given = dense.model_copy(update={"index": str(file)})
    assert given.open(corpus).search("town", 3) == first
    write_corpus(corpus, PASSAGES[1:])
    with pytest.raises(EnvironmentFault, match=r"holds \d+ vectors and the corpus \d+ passages"):
        given.open(corpus)


def test_a_dense_model_that_is_not_there_is_a_fault(dense: DenseSettings, corpus: Path) -> None:
    with pytest.raises(EnvironmentFault, match="dense retriever cannot be opened"):
        dense.model_copy(update={"model": str(corpus.parent / "none")}).open(corpus)
    with pytest.raises(EnvironmentFault, match=r"env\.corpus"):
        dense.open(None)


# HTTP ---------------------------------------------------------------------------------------------------


def client(url: str, **changed: object) -> HttpRetriever:
    values = {"timeout_s": 20, "retries": 3, "wait_s": 0.01, "down_s": 0} | changed
    fixed = {"name": "http", "url": url, "deadline_s": 50, "max_bytes": 1_000_000}
    return HttpRetriever(HttpSettings.model_validate(fixed | values))


def test_a_server_gives_what_the_same_index_gives_here(serve, corpus: Path) -> None:
    url, _ = serve(corpus)
    retriever = client(url)
    index = Bm25(PASSAGES, 1.5, 0.75)
    for query in (PASSAGES[0].title, "town mayor", "qqq"):
        assert retriever.search(query, 3) == index.search(query, 3)


def test_a_server_that_is_starting_is_asked_again(serve, corpus: Path) -> None:
    url, _ = serve(corpus, "--fail", "3")
    assert client(url).search(PASSAGES[0].title, 1) == [PASSAGES[0]]
    url, _ = serve(corpus, "--fail", "5")
    with pytest.raises(EnvironmentFault, match="in 4 attempts"):
        client(url).search("x", 1)


def test_a_server_that_does_not_answer_in_time_is_a_fault(serve, corpus: Path) -> None:
    url, _ = serve(corpus, "--delay", "5")
    started = time.monotonic()
    with pytest.raises(EnvironmentFault, match="in 1 attempts"):
        client(url, timeout_s=0.3, retries=0).search("x", 1)
    assert time.monotonic() - started < 4  # it did not wait for the answer


def test_what_is_no_answer_of_such_a_server_is_a_fault(serve, corpus: Path) -> None:
    url, _ = serve(corpus)
    with pytest.raises(EnvironmentFault, match="404"):
        client(url + "r").search("x", 1)


def test_a_killed_server_is_left_alone_for_a_while_and_found_again(serve, corpus: Path) -> None:
    url, process = serve(corpus)
    now = [100.0]
    settings = HttpSettings(
        name="http", url=url, deadline_s=9, timeout_s=5, retries=1, wait_s=0, down_s=30, max_bytes=100_000
    )
    retriever = HttpRetriever(settings, clock=lambda: now[0])
    assert retriever.search("town", 1)
    process.kill()
    process.wait()
    with pytest.raises(EnvironmentFault, match="gave no passages"):
        retriever.search("town", 1)
    url, _ = serve(corpus)
    retriever._client.url = url
    with pytest.raises(EnvironmentFault, match="gave no passages"):  # not asked: the pause is not over
        retriever.search("town", 1)
    now[0] += 31
    assert retriever.search("town", 1)


def test_one_process_opens_a_retriever_once(corpus: Path) -> None:
    settings = Bm25Settings(name="bm25", k1=1.5, b=0.75)
    assert shared_retriever(settings, corpus) is shared_retriever(settings.model_copy(), corpus)
