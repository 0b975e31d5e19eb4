"""Annotations in words, as lerobot 0.6 writes them: steps of a task, and other wordings of it."""

import numpy as np
import pytest

from metalora_jax.adaptation.base import load
from metalora_jax.data import content, frames, sources
from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.data.demos import DemoError
from metalora_jax.data.normalize import compute
from tests.data.lerobot_sets import DATA
from tests.demo_formats import CAMERAS, FPS, edit_info

pytestmark = pytest.mark.parquet
KEYS = {"instruction": "subtask", "paraphrases": "task_aug"}


def remark(style, content, timestamp=None, camera=None):
    said = {"role": "user", "content": content, "style": style, "camera": camera, "tool_calls": None}
    return said if timestamp is None else {**said, "timestamp": timestamp}


def annotate(root, persistent, events=()):
    """Writes the two columns; `events` are (row, remark)."""
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(root / DATA)
    kind = [("role", pa.string()), ("content", pa.string()), ("style", pa.string())]
    end = [("camera", pa.string()), ("tool_calls", pa.list_(pa.string()))]
    rows = [[] for _ in range(table.num_rows)]
    for row, said in events:
        rows[row].append(said)
    for name, values, fields in (
        ("language_persistent", [persistent] * table.num_rows, [*kind, ("timestamp", pa.float32()), *end]),
        ("language_events", rows, [*kind, *end]),
    ):
        table = table.append_column(name, pa.array(values, pa.list_(pa.struct(fields))))
    pq.write_table(table, root / DATA)
    features = json.loads((root / "meta" / "info.json").read_text())["features"]
    words = {"dtype": "language", "shape": [1], "names": None}
    edit_info(root, features={**features, "language_persistent": words, "language_events": words})


def first(root, keys):
    return next(sources.open(root, CAMERAS, keys).survey())[1]


def test_steps_and_other_wordings(v3, demos):
    persistent = [
        remark("subtask", " lift it ", 3 / FPS),
        remark("subtask", "reach for it", 0.0),
        remark("subtask", "after the end", 1e3),
        remark("plan", "first reach, then lift", 0.0),
        remark("task_aug", demos[0].instruction.upper(), 0.0),  # the instruction itself
        remark("task_aug", "take hold of it", 0.0),
        remark("task_aug", "Take  hold of it", 0.0),
    ]
    annotate(v3, persistent, [(2, remark("interjection", "slower")), (1, remark("vqa", "{}", camera=CAMERAS[0]))])
    demo = first(v3, KEYS)
    assert demo.instruction == demos[0].instruction
    assert demo.steps == ((0, "reach for it"), (3, "lift it"))
    assert [text.lower().split() for text in demo.paraphrases] == [["take", "hold", "of", "it"]]
    assert first(v3, {"instruction": "interjection"}).steps == ((2, "slower"),)
    plain = first(v3, {})
    assert (plain.steps, plain.paraphrases) == ((), ())
    assert content.digest({"a": [plain]}) != content.digest({"a": [demo]})


def test_every_frame_is_told_its_own_step(v3):
    annotate(v3, [remark("subtask", "go", 0.0), remark("subtask", "lift", 3 / FPS), remark("task_aug", "up", 0.0)])
    demo, base = first(v3, KEYS), load()
    image = np.zeros((len(demo.actions), 1, 64, 64, 3), np.uint8)
    demo = demo._replace(images=image, state=demo.state[:, :4], actions=demo.actions[:, :4])
    known = base.preprocessor._replace(statistics=compute([demo]))
    made = frames.gather({"task": [demo]}, known, ImageAugmentation(variants=2))
    words = {text: known.text(text, np.zeros((1, 4), np.float32))[0][0] for text in ("go", "lift", "up")}
    steps = len(demo.actions)
    for row in range(2 * steps):
        told = "up" if row >= steps else "go" if row < 3 else "lift"
        np.testing.assert_array_equal(made.text(np.array(row))[0], words[told])


@pytest.mark.parametrize(
    ("persistent", "keys", "message"),
    [
        ([remark("plan", "x", 0.0)], KEYS, r"no annotation of style 'subtask' for keys instruction=subtask; .* plan"),
        ([], {"paraphrases": "task_aug"}, "no annotation of style 'task_aug' .*; its styles are none"),
        ([remark("subtask", None, 0.0)], KEYS, "language_persistent of frame 0: a subtask is"),
        ([remark("subtask", "x", float("nan"))], KEYS, "the timestamp of a subtask is"),
    ],
)
def test_what_is_missing_or_damaged_is_named(v3, persistent, keys, message):
    annotate(v3, persistent)
    found = first(v3, keys)
    assert isinstance(found, DemoError)
    assert str(found).startswith(f"{v3 / DATA}: episode 0: ")
    with pytest.raises(DemoError, match=message):
        raise found


def test_other_formats_have_none(tmp_path):
    file = tmp_path / "a_demo.hdf5"
    file.touch()
    with pytest.raises(DemoError, match="keys name instruction, which only annotated LeRobot datasets give"):
        sources.open(file, CAMERAS, {"instruction": "subtask"})
