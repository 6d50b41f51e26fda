"""Parts of one's own: importing this registers them under the names that their YAML gives."""

from own_parts import drawers, rules

__all__ = ["drawers", "rules"]
