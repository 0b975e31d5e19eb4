"""Checks of a set-up and of demonstrations before any training; each says what is wrong and how to fix it."""
