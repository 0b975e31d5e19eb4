"""A base, adapters on it, its frozen front, and the agent that acts with both."""
