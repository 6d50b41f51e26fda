"""What a user's own package would hold: a component of every group, and YAML that Hydra finds by --config-dir."""
