"""`python -m metalora_jax.evaluation.reports RUN_DIR`, see `report`."""

from metalora_jax.evaluation.reports.report import main

if __name__ == "__main__":
    main()
