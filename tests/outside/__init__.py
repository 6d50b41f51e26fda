"""What a user's own package would hold: a component of every group, and YAML for --config-dir."""
