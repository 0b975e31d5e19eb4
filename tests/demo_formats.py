"""Made-up LIBERO demonstrations, and writers of the formats that the package reads but does not write."""

import io
import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from metalora_jax.data.libero_hdf5 import Moment, Origin, Recording
from metalora_jax.types import Demo

CAMERAS = ("agentview", "eye_in_hand")
TASKS = ("pick up the black bowl on the stove and place it on the plate", "turn on the stove")
FPS = 10
ORIGIN = Origin(
    model_file="<mujoco/>" * 10_000,  # longer than HDF5 lets a plain attribute be
    env_name="Libero_Tabletop_Manipulation",
    problem_name="libero_tabletop_manipulation",
    bddl_file_name="bddl_files/libero_spatial/pick_the_bowl.bddl",
    bddl_file_content="(define (problem LIBERO_Tabletop_Manipulation))",
    env_kwargs={"robots": ["Panda"], "control_freq": 20},
)


def make_libero_demos(task: str = TASKS[0], count: int = 2, size: int = 16) -> list[Demo]:
    """Demonstrations of 5, 6, ... steps in LIBERO's widths; pure in the arguments."""
    rng = np.random.default_rng([len(task), count])

    def one(steps: int) -> Demo:
        images = rng.integers(0, 256, (steps, 2, size, size, 3), dtype=np.uint8)
        vectors = (rng.uniform(-1, 1, (steps, width)).astype(np.float32) for width in (8, 7))
        return Demo(task, images, *vectors)

    return [one(5 + i) for i in range(count)]


def recordings(demos: list[Demo]) -> list[Recording]:
    """With a simulator's side made up for each step."""

    def moments(demo: Demo) -> tuple[Moment, ...]:
        return tuple(Moment(np.full(77, t), np.full(9, t), np.full(7, t)) for t in range(len(demo.actions)))

    return [Recording(demo, ORIGIN, moments(demo)) for demo in demos]


def write_lerobot_v2(
    root: Path,
    demos: list[Demo],
    video: bool = False,
    *,
    keys: Sequence[str] = ("image", "wrist_image"),
    vectors: tuple[str, str] = ("state", "actions"),
    names: Sequence[str] | None = None,
    fps: int = FPS,
    robot: str = "panda",
) -> None:
    """Version 2.1; by default in the layout of openpi's physical-intelligence/libero. Videos are lossless.

    Args:
      root: made here.
      demos: what it holds.
      video: pictures as videos, one an episode; else in the tables.
      keys: features of the cameras.
      vectors: features of state and action.
      names: of each of their dimensions.
      fps: frames per second.
      robot: its type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tasks = list(dict.fromkeys(demo.instruction for demo in demos))
    for folder in ("meta", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    first, rows = 0, []
    for index, demo in enumerate(demos):
        steps, numbers = len(demo.actions), np.arange(len(demo.actions))
        columns = dict(zip(vectors, (list(demo.state), list(demo.actions)), strict=True))
        for c, key in enumerate(keys):
            if video:
                path = root / "videos" / "chunk-000" / key / f"episode_{index:06d}.mp4"
                write_video(path, demo.images[:, c], fps)
            else:
                columns[key] = [{"bytes": png(image), "path": None} for image in demo.images[:, c]]
        columns |= {"timestamp": (numbers / fps).astype(np.float32), "frame_index": numbers}
        columns |= {"episode_index": np.full(steps, index), "index": first + numbers}
        columns["task_index"] = np.full(steps, tasks.index(demo.instruction))
        pq.write_table(pa.table(columns), root / "data" / "chunk-000" / f"episode_{index:06d}.parquet")
        rows.append({"episode_index": index, "tasks": [demo.instruction], "length": steps})
        first += steps
    size = demos[0].images.shape[2]
    features = {key: {"dtype": "video" if video else "image", "shape": [size, size, 3], "names": None} for key in keys}
    for key, values in zip(vectors, (demos[0].state, demos[0].actions), strict=True):
        features[key] = {"dtype": "float32", "shape": [values.shape[1]], "names": list(names or [key])}
    info = {
        "codebase_version": "v2.1",
        "robot_type": robot,
        "total_episodes": len(demos),
        "total_frames": first,
        "total_tasks": len(tasks),
        "total_videos": len(keys) * len(demos) * video,
        "total_chunks": 1,
        "chunks_size": 1000,
        "fps": fps,
        "splits": {"train": f"0:{len(demos)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }
    (root / "meta" / "info.json").write_text(json.dumps(info))
    write_lines(root / "meta" / "episodes.jsonl", rows)
    write_lines(root / "meta" / "tasks.jsonl", [{"task_index": i, "task": task} for i, task in enumerate(tasks)])


def write_lines(path: Path, rows: list[dict]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def png(image: np.ndarray) -> bytes:
    """A PNG file's content."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def edit_info(root: Path, **fields) -> None:
    """Changes fields of a LeRobot dataset's info.json."""
    path = root / "meta" / "info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def edit_rows(path: Path, change: Callable[[list[dict]], object]) -> None:
    """Changes the rows of a table in place; the types of its columns stay."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)


def assert_same(demos, wanted) -> None:
    """The same demonstrations, to the last bit."""
    for demo, other in zip(demos, wanted, strict=True):
        assert isinstance(demo, Demo), demo
        assert demo.instruction == other.instruction
        for got, array in zip(demo[1:4], other[1:4], strict=True):
            assert got.dtype == array.dtype
            np.testing.assert_array_equal(got, array)


def write_video(path: Path, images: np.ndarray, fps: int = FPS, times: np.ndarray | None = None) -> None:
    """A lossless video of pictures (T, H, W, 3) uint8; `times` [ms] of its frames, if they are not regular."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=fps, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = *images.shape[1:3], "rgb24"
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = (i, Fraction(1, fps)) if times is None else (int(times[i]), Fraction(1, 1000))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_rlds(root: Path, demos: list[Demo], encoding: str = "png") -> Path:
    """As TFDS writes modified_libero_rlds, but for the pictures' encoding and size; returns the version's directory."""
    import tensorflow_datasets as tfds

    size, features = demos[0].images.shape[2], tfds.features
    picture = features.Image(shape=(size, size, 3), dtype=np.uint8, encoding_format=encoding)
    observation = {
        "image": picture,
        "wrist_image": picture,
        "state": features.Tensor(shape=(8,), dtype=np.float32),
        "joint_state": features.Tensor(shape=(7,), dtype=np.float32),
    }
    step = {
        "observation": features.FeaturesDict(observation),
        "action": features.Tensor(shape=(7,), dtype=np.float32),
        "discount": features.Scalar(dtype=np.float32),
        "reward": features.Scalar(dtype=np.float32),
        "is_first": features.Scalar(dtype=np.bool_),
        "is_last": features.Scalar(dtype=np.bool_),
        "is_terminal": features.Scalar(dtype=np.bool_),
        "language_instruction": features.Text(),
    }
    layout = features.FeaturesDict(
        {
            "steps": features.Dataset(step),
            "episode_metadata": features.FeaturesDict({"file_path": features.Text()}),
        }
    )

    def steps_of(demo: Demo) -> list[dict]:
        last = len(demo.actions) - 1
        return [
            {
                "observation": {
                    "image": demo.images[t, 0],
                    "wrist_image": demo.images[t, 1],
                    "state": demo.state[t],
                    "joint_state": np.zeros(7, np.float32),
                },
                "action": demo.actions[t],
                "discount": 1.0,
                "reward": float(t == last),
                "is_first": t == 0,
                "is_last": t == last,
                "is_terminal": t == last,
                "language_instruction": demo.instruction,
            }
            for t in range(last + 1)
        ]

    class LiberoTiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=layout)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i, demo in enumerate(demos):
                yield f"demo_{i}", {"steps": steps_of(demo), "episode_metadata": {"file_path": f"demo_{i}"}}

    LiberoTiny(data_dir=str(root)).download_and_prepare()
    return root / "libero_tiny" / "1.0.0"
