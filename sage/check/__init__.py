"""`python -m sage check`: is this pair of models right for a run, said before anything is spent.

    page.py       lines (fine, warning, refused) under headings, and the exit code
    before.py     what costs nothing: settings, devices, folders, the hub; every run begins with it
    pair.py       the models in memory, and a few real turns of the environment
    numbers.py    what was loaded; engine.py, templates.py, judge.py, step.py: one question each
    command.py    the whole page

A part is one function of `Subject` to lines. What it raises is its line: no part takes the page down with it.
"""
