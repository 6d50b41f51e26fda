"""What the address of a server looks like, for every setting that holds one."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit


def server_address(url: str) -> SplitResult | None:
    """The parts of an http or https address with a host; None where it is no such address."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if valid else None
