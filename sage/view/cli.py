"""`python -m sage view [RUNS …]`: serve the page, or write it into one file."""

from __future__ import annotations

import argparse
import secrets
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sage.errors import ConfigError, reason_of

if TYPE_CHECKING:
    from sage.view.answers import Answers


PORT = 7643
"""Where the page is unless somebody else is there."""


def main(words: Sequence[str]) -> int:
    """The command; its exit code."""
    options = _parser().parse_args(words)
    try:
        with ExitStack() as stack:
            roots = [_root(word, stack) for word in options.runs or ["runs"]]
            return _write(roots, options) if options.out else _serve(roots, options.port)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sage view",
        description="Look at runs, their trajectories and their tokens in a browser. Reads run folders and "
        "writes nothing into them; answers this machine alone, to whoever has the address that it prints.",
    )
    parser.add_argument(
        "runs", nargs="*", metavar="RUNS", help="folders of runs, or mlflow:EXPERIMENT@<URI> (default: runs)"
    )
    parser.add_argument(
        "--port", type=_port, help=f"default: {PORT}, so that links stay what they are, or a free one"
    )
    parser.add_argument("--out", type=Path, metavar="PAGE.html", help="write the page into one file and end")
    parser.add_argument(
        "--episodes", type=_count, metavar="N", help="with --out: of each evaluation and step (default: all)"
    )
    parser.add_argument(
        *("--most-mb",), type=_size, default=40.0, metavar="MB", help="with --out: refuse more (default: 40)"
    )
    return parser


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port (0 to 65535)")
    return int(text)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of episodes (1 or more)")
    return int(text)


def _size(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < 1e5:
        raise argparse.ArgumentTypeError(f"{text!r} is no size in MB")
    return size


def _root(word: str, stack: ExitStack) -> Path:
    """The folder that a word names. Raises ConfigError."""
    if word.startswith("mlflow:"):
        return _from_mlflow(word.removeprefix("mlflow:"), stack)
    path = Path(word).expanduser()
    if not path.is_dir():
        raise ConfigError(
            f"There is no folder {word!r}; name a folder of runs (`runs/`, one run, one attempt) or "
            "mlflow:EXPERIMENT@<URI>."
        )
    return path


def _from_mlflow(text: str, stack: ExitStack) -> Path:
    """The experiment's runs as they are now, in a folder that goes when the viewer ends."""
    from analysis.errors import Refusal
    from analysis.load_mlflow import lay_out

    name, _, uri = text.partition("@")
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="sage-view-"))) / (name or "experiment")
    folder.mkdir(parents=True)
    try:
        lay_out(name, uri or None, folder, ("episodes", "turns", "steps", "tokens"))
    except Refusal as error:
        raise ConfigError(str(error)) from error
    return folder


def _answers(roots: Sequence[Path]) -> Answers:
    from sage.view.answers import Answers
    from sage.view.library import Library

    return Answers(Library(roots))


def _write(roots: Sequence[Path], options: argparse.Namespace) -> int:
    from sage.records.atomic import write_atomic
    from sage.view.export import one_file

    page, said = one_file(_answers(roots), options.episodes, options.most_mb)
    try:
        write_atomic(options.out, page)
    except OSError as error:
        raise ConfigError(f"{options.out} cannot be written: {reason_of(error)}") from error
    print(f"{options.out}: {said}")
    return 0


def _serve(roots: Sequence[Path], port: int | None) -> int:
    import uvicorn

    from sage.view.server import application

    token, answers = secrets.token_urlsafe(32), _answers(roots)
    # A thousand folders are read while the address is still being copied.
    threading.Thread(target=answers.runs, name="first look", daemon=True).start()
    with _listening(port) as listening:
        # Behind the #, which a browser sends to nobody and no log holds.
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/#/open/{token}"
        print(f"Open {address}\nCtrl-C ends it.", flush=True)
        config = uvicorn.Config(
            application(answers, token),
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="off",
        )
        uvicorn.Server(config).run(sockets=[listening])
    return 0


def _listening(port: int | None) -> socket.socket:
    """A socket of this machine alone; where no port was named, the usual one or a free one. Raises
    ConfigError."""
    tried = [PORT, 0] if port is None else [port]
    for one in tried:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", one))
            listening.listen()
            return listening
        except OSError as error:
            listening.close()
            why = error.strerror
    raise ConfigError(f"Port {tried[-1]} cannot be used: {why}; name another one.")
