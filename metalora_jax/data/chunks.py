"""Action chunks: the next `chunk` actions after every step of a demonstration."""

import numpy as np


def chunk_actions(actions: np.ndarray, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """(T, D) -> chunks (T, chunk, D), is_pad (T, chunk); steps past the end repeat the last action and are padding."""
    ahead = np.arange(len(actions))[:, None] + np.arange(chunk)[None]
    return actions[np.minimum(ahead, len(actions) - 1)], ahead >= len(actions)
