"""`metalora to_lerobot`, from a clone."""

from metalora_jax.commands import start

if __name__ == "__main__":
    start.launch("to_lerobot")
