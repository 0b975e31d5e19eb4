"""The few-shot protocol: what is adapted to what, which episodes are run, and the checks before any is."""
