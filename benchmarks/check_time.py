"""Where the time of `python -m sage check` goes: wall and CPU seconds of each part of the page.

    OMP_NUM_THREADS=1 python benchmarks/check_time.py student=hub student.path=/models/small teacher=hub \
        teacher.path=/models/large env.games=generated env.generated.train=4 tracking=none

With one thread, CPU seconds are about the wall seconds of an idle machine; with more, a busy one has threads
wait for one another, and wall seconds say nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable

from timing import machine

started = time.process_time()

from sage.check.command import check  # noqa: E402 - imports are part of what a user waits for
from sage.check.page import Line, Page  # noqa: E402
from sage.config.load import load  # noqa: E402


def main() -> int:
    """Exit code: the page's."""
    config = load(sys.argv[1:])
    rows = [("Start", time.process_time() - started, time.process_time() - started)]
    plain = Page.part

    def part(self: Page, heading: str, lines: Callable[[], Iterable[Line]]) -> bool:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            return plain(self, heading, lines)
        finally:
            rows.append((heading, time.perf_counter() - wall, time.process_time() - cpu))

    Page.part = part  # type: ignore[method-assign]
    page = check(config)
    rows.append(("All", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    print(f"\n{machine()}\n\n| part | CPU s | wall s |\n|---|---|---|")
    for heading, wall, cpu in rows:
        print(f"| {heading} | {cpu:.1f} | {wall:.1f} |")
    return page.exit_code


if __name__ == "__main__":
    sys.exit(main())
