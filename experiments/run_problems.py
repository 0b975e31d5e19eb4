"""`metalora run_problems`, from a clone."""

from metalora_jax.commands import start

if __name__ == "__main__":
    start.launch("run_problems")
