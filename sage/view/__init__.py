"""`python -m sage view`: runs, trajectories and tokens on a page. Reads run folders and never writes."""
