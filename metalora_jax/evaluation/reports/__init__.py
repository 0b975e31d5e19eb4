"""From raw episodes to a report: the records, what they came from, statistics, tables and figures; without JAX."""
