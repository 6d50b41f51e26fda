"""The report and the command line: complete, deterministic, self-contained, and honest about what is
missing."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pandas as pd
import pytest

from analysis.cli import build_parser, main
from analysis.load import from_episodes, load
from analysis.profile import interquartile_means, iqm, profiles
from analysis.question import Question
from analysis.render import latex, markdown, shown, signed, text
from analysis.report.reader import as_json, sample
from tests.analysis.synthetic import Study, episode_table, write_study

LEVELS = {"opd": 0.0, "sage_opd": 0.8}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    study = Study(LEVELS, games=12, splits=("valid_unseen",), train_steps=4, episodes_per_step=4)
    root = write_study(tmp_path_factory.mktemp("report_runs"), study)
    broken = sorted(root.glob("*/attempt_1"))[0]
    again = root / "eeeeeeeeeeee" / "attempt_1"
    again.mkdir(parents=True)
    shutil.copy(broken / "config.yaml", again)
    (again / "status.json").write_text(json.dumps({"state": "failed", "reason": "The <disk> was full."}))
    return root


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    command = [
        "report",
        str(runs),
        "--baseline",
        "opd",
        "--out",
        str(out),
        "--draws",
        "200",
        "--time",
        "T",
        "--title",
        "X",
    ]
    assert main(command) == 0
    return out


class Tags(HTMLParser):
    """Counts open elements and collects addresses."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.sections = [], [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]
        if tag == "section":
            self.sections.append(attributes["id"])
        if tag not in ("meta", "br", "img", "link", "path", "use", "rect", "circle", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag


def test_page_is_whole_and_self_contained(report):
    page = (report / "report.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert all(address.startswith("#") for address in tags.addresses)
    assert tags.sections[0] == "summary"
    assert {"compare", "controls", "variance", "agreement", "skipped", "reader"} <= set(tags.sections)
    assert "exploratory" in page
    assert "The &lt;disk&gt; was full." in page
    assert "was full.." not in page
    assert "Not in this report" not in page
    assert page.count("<svg") >= 7
    episodes = json.loads(re.search(r'id="episodes">(.*?)</script>', page, re.S).group(1))
    assert {episode["method"] for episode in episodes} == set(LEVELS)


def test_same_input_same_bytes(runs, report, tmp_path):
    command = ["report", str(runs), "--baseline", "opd", "--draws", "200", "--time", "T", "--title", "X"]
    done = subprocess.run(
        [sys.executable, "-m", "analysis", *command, "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "The <disk> was full." in done.stderr
    first = {path.relative_to(report): path.read_bytes() for path in report.rglob("*") if path.is_file()}
    second = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert first.keys() == second.keys()
    assert all(first[name] == second[name] for name in first)


def test_markdown_and_tables(report):
    page = (report / "report.md").read_text()
    assert page.startswith("# X")
    assert "| sage_opd |" in page
    compared = pd.read_csv(report / "tables" / "compare_full.csv")
    assert compared["method"].tolist() == ["sage_opd"]
    assert r"\toprule" in (report / "tables" / "compare.tex").read_text()


def test_report_of_a_csv_says_what_is_missing(tmp_path):
    episode_table(LEVELS, games=12).to_csv(tmp_path / "e.csv", index=False)
    out = tmp_path / "out"
    assert (
        main(["report", str(tmp_path / "e.csv"), "--baseline", "opd", "--out", str(out), "--draws", "100"])
        == 0
    )
    page = (out / "report.html").read_text()
    assert page.count("Not in this report") == 3
    # What the records cannot answer stands below all that they can.
    assert page.index("Not in this report") > page.rindex("<h2>")


def test_status_verdict_and_facts_stand_before_everything_else(report):
    page = (report / "report.html").read_text()
    head = page[page.index("<header>") : page.index("</header>")]
    assert head.index("exploratory") < head.index("comparison") < head.index('class="facts"')
    assert "The comparison with opd: " in head
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", head))
    assert facts["training"] == "4 optimizer steps"
    assert facts["games"] == "alfworld: 12 valid_unseen (generated)"
    assert facts["runs"] == "6 of 2 methods, seeds 0, 1, 2; 1 more not in the numbers"
    assert page.index("</header>") < page.index("<nav>") < page.index("<section")


def test_columns_have_words_and_their_code_in_a_tooltip(report):
    page = (report / "report.html").read_text()
    heads = dict(re.findall(r'<th [^>]*title="(.*?)"[^>]*>(.*?)</th>', page))
    assert heads["mean_baseline"] == "mean of the baseline"
    assert heads["detectable"] == "could see"
    assert all("_" not in words for words in heads.values())
    assert not [words for words in re.findall(r"<th(?: [^>]*)?>(.*?)</th>", page) if "_" in words]


def test_each_contrast_has_a_line_for_each_seed(report):
    page = (report / "report.html").read_text()
    assert "Runs that share a seed: one line from opd&#39;s run" in page
    pairs = pd.read_csv(report / "tables" / "pairs_by_seed.csv")
    assert pairs["seed"].tolist() == [0, 1, 2]
    compared = pd.read_csv(report / "tables" / "compare_full.csv")
    assert pairs["difference"].mean() == pytest.approx(compared["difference"].iloc[0])


def test_no_table_of_the_report_is_without_rows(report):
    assert all(len(pd.read_csv(file)) for file in (report / "tables").glob("*.csv"))


def test_one_run_alone_gives_a_short_page_without_a_baseline(tmp_path):
    episode_table({"sage_opd": 0.3}, seeds=[4], games=12).to_csv(tmp_path / "e.csv", index=False)
    out = tmp_path / "out"
    assert main(["report", str(tmp_path / "e.csv"), "--out", str(out), "--draws", "100"]) == 0
    page = (out / "report.html").read_text()
    assert "Nothing is compared here. sage_opd, seed 4" in page
    tags = Tags()
    tags.feed(page)
    assert tags.sections == ["summary", "provenance"]
    assert tags.open == []
    assert page.count('<details class="section">') == 1
    assert "<svg" not in page


def test_several_methods_need_a_baseline(tmp_path, capsys):
    episode_table(LEVELS, games=12).to_csv(tmp_path / "e.csv", index=False)
    assert main(["report", str(tmp_path / "e.csv"), "--out", str(tmp_path / "out")]) == 2
    assert "--baseline" in capsys.readouterr().err


def test_commands_print(runs, capsys):
    assert main(["summary", str(runs), "--format", "csv", "--table", "summary"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith("env,source,split,method,runs")
    assert "The <disk> was full." in err
    assert main(["compare", str(runs), "--baseline", "sft"]) == 2
    assert "refused: There is no run of the baseline 'sft'" in capsys.readouterr().err
    assert main(["summary", str(runs), "--table", "nothing"]) == 2


def test_every_command_teaches():
    parser = build_parser()
    commands = parser._subparsers._group_actions[0].choices
    names = ["summary", "compare", "pairs", "power", "variance", "agreement", "rates", "cost", "skipped"]
    assert list(commands) == [*names, "controls", "sweep", "published", "plan", "report"]
    for command in commands.values():
        assert len(command.description) > 200
    assert "three questions" in parser.format_help()


def test_help_imports_nothing_heavy():
    code = "import sys; from analysis.cli import build_parser; build_parser(); print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_power_command(capsys):
    assert main(["power", "--runs", "3,10", "--format", "csv", "--table", "detectable"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 2 * 4
    assert main(["power", "--runs", "x"]) == 2


def test_no_training_code_is_imported():
    code = (
        "import sys; import analysis.report, analysis.cli, analysis.sweep;"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('sage', 'torch', 'hydra', 'mlflow', "
        "'transformers')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Only what says how records are identified and what an interval is: nothing that trains.
    known = {"sage", *(f"sage.{n}" for n in ("config", "records", "locks", "signals", "redaction"))}
    known |= {"sage.old_names"}
    known |= {f"sage.config.{n}" for n in ("schema", "registry", "prompt_texts", "plain", "moved")}
    found = ast.literal_eval(done.stdout)
    assert [name for name in found if name not in known and not name.startswith("sage.records.")] == []


def test_reader_sample_is_small_and_mixed(runs):
    turns = load([runs], ("episodes", "turns")).turns
    episodes = sample(turns, per_method=4)
    assert len(episodes) == 8
    for method in LEVELS:
        assert len({e["status"] for e in episodes if e["method"] == method}) == 2
    assert sample(pd.DataFrame()) == []


def test_data_in_a_page_is_json_that_no_text_can_leave():
    data = {"text": ["</script><!-- x", "<SCRIPT>", "]]>", "\u2028", "\ud800", "a & b", "é"]}
    written = as_json(data)
    assert not set("<>&") & set(written)
    assert written.isascii()
    assert json.loads(written) == data


def test_markdown_of_hostile_text_is_text():
    hostile = "<script>x</script> [a](javascript:x) ![p](http://x) `c` a|b *d* \n# e & f"
    (_, _, row) = markdown(pd.DataFrame({"name": [hostile]})).splitlines()
    assert row == (
        "| &lt;script&gt;x&lt;/script&gt; \\[a\\](javascript:x) !\\[p\\](http://x) "
        "\\`c\\` a\\|b \\*d\\*  # e &amp; f |"
    )


def test_profile_and_iqm():
    from scipy.stats import trim_mean

    values = [0.1, 0.5, 0.2, 0.9, 0.7, 0.3, 0.4, 1.0]
    assert iqm(values) == pytest.approx(trim_mean(values, 0.25))
    records = from_episodes(episode_table(LEVELS, games=24))
    frame = profiles(records, Question(draws=50))
    assert frame.groupby("method")["share"].apply(lambda s: s.is_monotonic_decreasing).all()
    assert frame.loc[frame["tau"] == 0, "share"].eq(1).all()
    assert interquartile_means(records)["rates"].eq(30).all()


def test_rendering():
    frame = pd.DataFrame(
        {"a_b": ["x|y", "50 %"], "p": [0.0001, 0.25], "n": [1.23456, float("nan")], "ok": [True, False]}
    )
    assert "x\\|y" in markdown(frame)
    assert "<0.001" in text(frame)
    assert r"a\_b" in latex(frame)
    assert r"50 \%" in latex(frame)
    assert shown(float("inf")) == "inf"
    assert [signed(x) for x in (-0.0001, 0.0, -0.0004, 0.12, -0.5)] == [
        "0.000",
        "0.000",
        "0.000",
        "+0.120",
        "-0.500",
    ]
    assert text(frame.iloc[:0]) == "(no rows)\n"
    assert "a_b" in text(frame, width=10)


def test_a_command_still_answers_to_its_former_name(tmp_path, capsys):
    """For a release, with a note on stderr that says the new one; its table too."""
    table = pd.concat([episode_table({"m": 0.1 * i}, games=12).assign(tau=i) for i in range(2)])
    table["run"] = table["tau"].astype(str) + "-" + table["seed"].astype(str)
    table.to_csv(tmp_path / "e.csv", index=False)
    line = [str(tmp_path / "e.csv"), "--key", "tau", "--draws", "100", "--format", "csv", "--table"]
    assert main(["thresholds", *line, "thresholds"]) == 0
    old, note = capsys.readouterr()
    assert main(["sweep", *line, "sweep"]) == 0
    new, nothing = capsys.readouterr()
    assert old == new
    assert "`thresholds` is called `sweep` now" in note
    assert nothing == ""
