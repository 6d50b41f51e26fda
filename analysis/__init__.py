"""Statistics over records: who won, by how much, and whether the data can tell.

Invariant: this package reads records (run directories, an MLflow experiment, a CSV of episodes) and never
imports training code. `python -m analysis --help` is the front door; each question it knows is a file of
`analysis.questions`, and its statistics are functions that take records and a `Question` and return a
DataFrame:

    from analysis.load import load
    from analysis.compare import compare
    from analysis.question import Question
    compare(load(["runs"]), Question(baseline="opd"))
"""
