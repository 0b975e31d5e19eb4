"""Digests of demonstrations: by content alone, and by all of it."""

import numpy as np
import pytest

from metalora_jax.data.content import digest
from tests.tiny_base import make_demos


def both():
    return {task: make_demos(task) for task in ("reach", "push")}


def test_equal_content_has_equal_digests():
    assert digest(both()) == digest(dict(reversed(both().items())))
    again = {task: [demo._replace(actions=demo.actions.copy()) for demo in demos] for task, demos in both().items()}
    assert digest(again) == digest(both())


@pytest.mark.parametrize("field", ["instruction", "images", "state", "actions"])
def test_every_field_counts(field):
    other = both()
    demo = other["push"][-1]
    value = getattr(demo, field)
    if field == "instruction":
        changed = value + "!"
    else:
        changed = value.copy()
        changed.flat[-1] = np.nextafter(changed.flat[-1], 9) if changed.dtype == np.float32 else 255 - changed.flat[-1]
    other["push"][-1] = demo._replace(**{field: changed})
    assert digest(other) != digest(both())


def test_names_number_and_order_count():
    demos = both()
    found = {
        digest(demos),
        digest({"reach": demos["reach"]}),
        digest({"reach": demos["push"], "push": demos["reach"]}),
        digest(demos | {"push": demos["push"][:-1]}),
        digest(demos | {"push": demos["push"][::-1]}),
    }
    assert len(found) == 5
