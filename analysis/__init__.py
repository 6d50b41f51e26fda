"""Statistics over records: who won, by how much, and whether the data can tell.

Invariant: this package reads records (run directories, an MLflow experiment, a CSV of episodes) and never
imports training code. `python -m analysis --help` is the front door; every command is also a function of the
module of its name that takes records and returns a DataFrame:

    from analysis.load import load
    from analysis.compare import compare
    compare(load(["runs"]), baseline="opd")
"""
