"""Options of installed packages (`sage.config.installed`) stand beside ours; of one name ours is taken."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class SageParts(SearchPathPlugin):
    """Asked by Hydra whenever it composes."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        from sage.config.installed import folders

        for package, folder in folders():
            search_path.append(provider=package, path=f"file://{folder}")
