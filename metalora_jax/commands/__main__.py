"""`python -m metalora_jax.commands`, where the script `metalora` is not on the path."""

from metalora_jax.commands.main import main

if __name__ == "__main__":
    main()
