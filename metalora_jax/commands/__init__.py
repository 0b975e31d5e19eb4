"""What a user runs, a module for each command: `metalora NAME`, or `python experiments/NAME.py` in a clone."""
