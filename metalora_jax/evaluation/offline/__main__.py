"""Makes the report of a comparison without a simulator again: `python -m metalora_jax.evaluation.offline RUN`."""

import argparse
from pathlib import Path

from metalora_jax.evaluation.offline.report import write_report


def main() -> None:
    """Command line: a run directory."""
    parser = argparse.ArgumentParser(prog="python -m metalora_jax.evaluation.offline")
    parser.add_argument("run_dir", type=Path, help="directory with offline.jsonl and config.json")
    try:
        print(write_report(parser.parse_args().run_dir))
    except (ValueError, OSError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
