"""A CSV or Parquet file of episodes as a table, or one sentence that says what the file is instead."""

from __future__ import annotations

import difflib
import gzip
import warnings
import zlib
from pathlib import Path

import pandas as pd

from analysis.episodes import EPISODE_DEFAULTS, NEEDS, REQUIRED, WORDS
from analysis.errors import Refusal

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
OTHER_FILES = {
    b"\x1f\x8b": "packed by gzip (name it .csv.gz)",
    b"PK\x03\x04": "a workbook or another zip file",
    b"PAR1": "Parquet (name it .parquet)",
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
}
"""What a file that is no CSV begins with."""
KNOWN = (*REQUIRED, *EPISODE_DEFAULTS, "run", "won", "status", "ok")


def read_episodes(path: Path) -> pd.DataFrame:
    """The table of a `.csv`, `.csv.gz` or `.parquet` file. Raises Refusal for what is no such file."""
    if not path.exists():
        raise Refusal(f"{path} does not exist{_nearest(path)}.")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(path)
    if suffix in (".csv", ".gz"):
        return _read_csv(path)
    raise Refusal(
        f"{path} is neither a directory, a .csv, a .csv.gz nor a .parquet file; write the table as one of "
        "these."
    )


def _nearest(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent} either"
    near = difflib.get_close_matches(
        path.name, [other.name for other in path.parent.iterdir()], 1, cutoff=0.6
    )
    return f"; there is a {near[0]} beside it" if near else ""


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are of both kinds
        raise Refusal(f"{path.name} is no Parquet file that can be read ({str(error)[:120]}).") from None
    _check_header([str(name) for name in frame.columns], path.name)
    return frame


def _read_csv(path: Path) -> pd.DataFrame:
    header = header_of(path)
    _check_header(header, path.name)
    words = {name: str for name in header if name in WORDS}
    # Everywhere else an empty cell is a missing number, and any other text is refused where it is read.
    blanks = {name: ["", "nan", "NaN"] for name in header if name not in WORDS}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                path,
                compression="gzip" if path.suffix.lower() == ".gz" else None,
                encoding="utf-8-sig",
                dtype=words,
                keep_default_na=False,
                na_values=blanks,
                index_col=False,
                low_memory=False,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        why = " ".join(str(error).split())[:140]
        raise Refusal(
            f"{path.name} is not one table: its rows do not all have its {len(header)} columns ({why})."
        ) from None
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    except (OSError, EOFError, zlib.error) as error:
        raise Refusal(f"{path.name} cannot be read to its end ({error}).") from None


def header_of(path: Path, needs: str = NEEDS) -> list[str]:
    """Names of the first line of a CSV. Refuses what is empty, not UTF-8 or without commas; `needs` says what
    a file of its kind has in its header."""
    text = _first_line(path, needs)
    if "\r" in text.rstrip("\r\n"):
        raise Refusal(
            f"{path.name} ends its lines as old Macintosh programs do (CR alone); save it with LF or CRLF."
        )
    for sign, name in SEPARATORS.items():
        if text.count(sign) > text.count(","):
            raise Refusal(
                f"{path.name} separates its columns by {name} ({text.strip()[:60]}); write it with commas "
                "(in pandas: frame.to_csv(path, index=False))."
            )
    return [name.strip('"') for name in text.rstrip("\r\n").split(",")]


def _first_line(path: Path, needs: str) -> str:
    """As text, with its end. Refuses what is no CSV by its first bytes."""
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rb") as file:
            first, second = file.readline(), file.readline()
    except (OSError, EOFError, zlib.error) as error:
        raise Refusal(f"{path.name} cannot be read ({error}).") from None
    if program := next((name for start, name in OTHER_FILES.items() if first.startswith(start)), ""):
        raise Refusal(f"{path.name} is no CSV but {program}; write its table as CSV UTF-8.")
    if not first.strip() and second:
        raise Refusal(f"{path.name} begins with a blank line; its first line is the header, with {needs}.")
    if not first.strip():
        raise Refusal(f"{path.name} is empty; it needs a header with {needs}, and rows below it.")
    if first[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in first:
        raise Refusal(
            f"{path.name} is not UTF-8 but UTF-16 (a spreadsheet's Unicode text); save it as CSV UTF-8."
        )
    try:
        return first.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None


def _not_utf8(path: Path, error: UnicodeDecodeError) -> Refusal:
    return Refusal(f"{path.name} is not UTF-8 (byte {error.object[error.start]:#x}); save it as CSV UTF-8.")


def _check_header(header: list[str], where: str) -> None:
    """Refuse names that are nearly a known one: ` Method`, `SEED`; and a name that is there twice."""
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise Refusal(
            f"{where} has the column {twice[0]} {header.count(twice[0])} times; one of them must go."
        )
    strange = {name: name.strip().lower() for name in header if name not in KNOWN}
    wrong = {name: plain for name, plain in strange.items() if plain in KNOWN and plain not in header}
    if wrong:
        found, right = (", ".join(map(repr, names)) for names in (wrong, wrong.values()))
        raise Refusal(f"{where} calls its columns {found}; write {right}, in lower case and without spaces.")
