"""Judging policies on recorded episodes alone: how far their actions are from those that were demonstrated."""
