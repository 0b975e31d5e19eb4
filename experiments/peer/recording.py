"""Datasets as lerobot itself writes and edits them, in 0.4.4 and in 0.6.1; a part of `lerobot_peer.py`."""

from pathlib import Path

import numpy as np

NEW = ("depth", "language", "converted", "relative")  # what only 0.6.1 writes
HOW = ("av1", "h264", "png", "streaming", "files", "resumed", "deleted", "merged", "split", "retold", *NEW)


def write(root, source, how, new):
    """Writes what `source` (.npz) holds to `root`, in one of the ways of HOW.

    Args:
      root: the directory to make.
      source: "fps", "names", "cameras", "robot" (its type), and of each episode i "images{i}" (T, C, H, W, 3),
        "state{i}", "actions{i}" and "text{i}".
      how: one of HOW.
      new: whether this is lerobot 0.6.1.

    Returns:
      The numbers of the episodes that are left, in order.
    """
    from lerobot.datasets import dataset_tools

    data, root = np.load(source), Path(root)
    count = sum(name.startswith("text") for name in data)
    first = root.parent / f"{root.name}_first"
    left = list(range(count))
    if how in ("deleted", "split", "converted"):
        made = _record(first, data, left, "png" if how == "converted" else how, new)
    elif how == "merged":
        made = [_record(first, data, left[::2], how, new), _record(Path(f"{first}2"), data, left[1::2], how, new)]
        left = left[::2] + left[1::2]
    elif how == "resumed":
        _record(root, data, left[: count // 2], how, new)
        _record(root, data, left[count // 2 :], how, new, again=True)
    else:
        made = _record(root, data, left, how, new)
    if how == "deleted":
        dataset_tools.delete_episodes(made, [1, 4], output_dir=root, repo_id="local/edited")
        left = [i for i in left if i not in (1, 4)]
    elif how == "split":
        left = left[: count // 2]
        dataset_tools.split_dataset(made, {"a": left, "b": list(range(len(left), count))}, output_dir=root.parent)
        (root.parent / "a").rename(root)
    elif how == "merged":
        dataset_tools.merge_datasets(made, "local/merged", output_dir=root)
    elif how == "retold":
        dataset_tools.modify_tasks(made, episode_tasks={i: str(data[f"text{i}"]) for i in left})
    elif how == "converted":
        dataset_tools.convert_image_to_video_dataset(made, output_dir=root, repo_id="local/converted", num_workers=1)
    elif how == "relative":
        dataset_tools.recompute_stats(made, relative_action=True, chunk_size=10)
    elif how == "language":
        _annotate(root, data, left)
    return left


def _record(root, data, episodes, how, new, again=False):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    cameras, names = [str(name) for name in data["cameras"]], [str(name) for name in data["names"]]
    height, width = data[f"images{episodes[0]}"].shape[2:4]
    kind = "image" if how == "png" else "video"
    features = {
        "observation.state": {"dtype": "float32", "shape": (len(names),), "names": names},
        "action": {"dtype": "float32", "shape": (len(names),), "names": names},
    }
    for camera in cameras:
        features[f"observation.images.{camera}"] = {
            "dtype": kind,
            "shape": (height, width, 3),
            "names": ["height", "width", "channels"],
        }
    if how == "depth":
        features["observation.images.depth"] = {
            "dtype": "video",
            "shape": (height, width, 1),
            "names": ["height", "width", "channels"],
            "info": {"is_depth_map": True},
        }
    options = {"streaming_encoding": True} if how == "streaming" else {}
    if how == "h264" and new:
        from lerobot.configs.video import RGBEncoderConfig

        options["rgb_encoder"] = RGBEncoderConfig(vcodec="h264")
    elif how == "h264":
        options["vcodec"] = "h264"
    if again:
        dataset = LeRobotDataset.resume("local/made", root=root) if new else LeRobotDataset("local/made", root=root)
    else:
        dataset = LeRobotDataset.create(
            "local/made", int(data["fps"]), features, root, str(data["robot"]), use_videos=kind == "video", **options
        )
    if how == "files":
        dataset.meta.update_chunk_settings(data_files_size_in_mb=1, video_files_size_in_mb=1)
    for i in episodes:
        images, state, actions = (data[f"{part}{i}"] for part in ("images", "state", "actions"))
        for step in range(len(state)):
            frame = {f"observation.images.{camera}": images[step, c] for c, camera in enumerate(cameras)}
            if how == "depth":
                frame["observation.images.depth"] = images[step, 0, :, :, :1].astype(np.uint16) * 10 + 200
            told = "later" if how == "retold" else str(data[f"text{i}"])
            dataset.add_frame(frame | {"observation.state": state[step], "action": actions[step], "task": told})
        dataset.save_episode()
    dataset.finalize()
    return LeRobotDataset("local/made", root=root)


def _annotate(root, data, episodes):
    """The two columns, by the types that lerobot's annotation writes."""
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq
    from lerobot.datasets import language

    for path in sorted((root / "data").rglob("*.parquet")):
        table = pq.read_table(path)
        rows = table["episode_index"].to_pylist()
        told = {"role": "assistant", "camera": None, "tool_calls": None}
        persistent = [
            [
                {**told, "style": "subtask", "content": "reach for it", "timestamp": 0.0},
                {**told, "style": "subtask", "content": "bring it", "timestamp": 1.0},
                {**told, "style": "task_aug", "content": f"please {data[f'text{i}']}", "timestamp": 0.0},
            ]
            for i in rows
        ]
        for name, values, kind in (
            ("language_persistent", persistent, language.language_persistent_arrow_type()),
            ("language_events", [[] for _ in rows], language.language_events_arrow_type()),
        ):
            plain = pa.list_(pa.struct([field.with_type(_plain(field.type)) for field in kind.value_type]))
            table = table.append_column(name, pa.array(values, plain).cast(kind))
        pq.write_table(table, path)
    path = root / "meta" / "info.json"
    info = json.loads(path.read_text())
    info["features"] |= language.language_feature_info()
    path.write_text(json.dumps(info))


def _plain(kind):
    """pyarrow makes no arrays of JSON directly, and casts texts to it."""
    import pyarrow as pa

    return pa.list_(pa.string()) if pa.types.is_list(kind) else kind
