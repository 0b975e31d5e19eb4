"""How the binaries start: a user's mistake ends in one line that names it, not in a traceback."""

import logging as python_logging
import os
import sys
from collections.abc import Callable

from absl import app, logging

from metalora_jax import caches


def run(main: Callable[[list[str]], None]) -> None:
    """`absl.app.run`, with errors that a user can mend shown as one line; `--verbosity=1` shows the traceback too."""

    def guarded(argv: list[str]) -> None:
        try:
            main(argv)
        except KeyboardInterrupt:
            sys.exit("interrupted; finished work is kept, and the same command goes on from there")
        except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
            if logging.get_verbosity() >= logging.DEBUG:
                raise
            sys.exit(f"error: {error}  (--verbosity=1 shows where)")

    # Several processes share a GPU here (arms are trained side by side): none may take its memory in advance.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # JAX reports at length, at level INFO, the accelerators that a machine does not have.
    python_logging.getLogger("jax._src.xla_bridge").setLevel(python_logging.WARNING)
    caches.keep_compiled()
    app.run(guarded)
