"""Are the pictures present, upright, and from the cameras that they are named after?"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from metalora_jax.adaptation.conventions import AS_IT_IS, VIEWS
from metalora_jax.evaluation.doctor.findings import Finding, Outcome, together
from metalora_jax.evaluation.doctor.motion import counts
from metalora_jax.evaluation.doctor.recordings import Recording

SIDE = 32  # [px] to which pictures are resized before comparison
MARGIN = 0.1  # of correlation by which another view must be better
ALIKE = 0.3  # correlation that the best view must reach to be conclusive
MOVED = 0.08  # [m] of the hand that must show in every camera
TURNED = 10.0  # [degrees] of the first joints that must, where the state is joints
DARK = 40  # [1/255] that the brightest value of a picture must reach
OPPOSITE = -0.5  # correlation of red less blue with the simulator's, below which the two are swapped
SAME = 1.0  # [1/255] mean difference of two cameras that are one
AGAIN = "record it again, with every camera rendered at every step"

_REMEDY = {
    "upside down": "turn the rows around (images[:, ::-1])",
    "mirrored": "turn the columns around (images[:, :, ::-1])",
    "turned by 180 degrees": "turn them by 180 degrees (images[:, ::-1, ::-1]), or fix macros_image_convention",
}


def contents(recordings: Sequence[Recording], cameras: Sequence[str], moved: float = MOVED) -> Outcome:
    """Do the pictures show something, move with the robot (by `moved`), and differ between cameras?"""
    found, again = [], AGAIN
    for r in recordings:
        for c, camera in enumerate(cameras):
            if r.blank[c] > 0:
                found.append((r.file, r.name, f"{camera} shows one even colour in some or all pictures", again))
            elif r.frozen[c] > moved:
                found.append((r.file, r.name, f"{camera} does not change while the hand moves", again))
            if r.blank[c] < 1 and r.first[c].max() < DARK:
                what = f"{camera} is nearly black"
                found.append((r.file, r.name, what, "write values from 0 to 255, and light the scene"))
            elif r.blank[c] < 1 and np.ptp(r.first[c], axis=-1).max() == 0:
                found.append((r.file, r.name, f"{camera} has no colour", "record red, green and blue"))
        for c, camera in enumerate(cameras):
            for d in range(c):
                if np.abs(r.first[c].astype(float) - r.first[d]).mean() < SAME:
                    what = f"{cameras[d]} and {camera} show the same picture"
                    found.append((r.file, r.name, what, "write each camera under its own key"))
    sizes = sorted({r.digest.size for r in recordings})
    note = f"{', '.join(cameras)}, {', '.join(f'{h}x{w}' for h, w in sizes)} px"
    if len(sizes) > 1:
        return Outcome(
            "pictures",
            (*together(found, counts(recordings)), Finding("pictures", f"of several sizes: {note}", "record one size")),
            note,
        )
    return Outcome("pictures", together(found, counts(recordings)), note)


def one_orientation(recordings: Sequence[Recording], cameras: Sequence[str]) -> Outcome:
    """Are all demonstrations of a file the same way up? Each is compared with the median of the others."""
    found, judged = [], 0
    for file in counts(recordings):
        own = [r for r in recordings if r.file == file]
        if len(own) < 3 or len({r.first.shape for r in own}) > 1:
            continue
        for c, camera in enumerate(cameras):
            usual = np.median([r.first[c] for r in own], axis=0)
            for r in own:
                judged += 1
                if view := other_view(r.first[c], usual):
                    what = f"{camera} is {view}, compared with the other demonstrations"
                    found.append((file, r.name, what, _REMEDY[view]))
    skipped = "" if judged else "needs at least three demonstrations in a file"
    return Outcome("one orientation", together(found, counts(recordings)), f"{judged} first pictures", skipped)


def against_simulator(
    recordings: Sequence[Recording],
    cameras: Sequence[str],
    seen: Mapping[tuple[str, str], np.ndarray],
    elsewhere: Collection[tuple[str, str]] = (),
) -> Outcome:
    """Do first pictures have the simulator's orientation, and come from the same cameras?

    Only comparisons between views count, so that other textures, or objects in other places, do not matter.

    Args:
      recordings: all of them; those that are not in `seen` are left out.
      cameras: their names.
      seen: (file, name) -> what the simulator shows at that start, or at any start of the task, (C, H, W, 3) uint8.
      elsewhere: those shown at another start than their own. Objects in other places can make a picture look turned:
        what is said of them counts where it is said of half of those in their file. `one_orientation` finds odd ones.
    """
    found: list[tuple[str, str, str, str]] = []
    scores = []
    for r in recordings:
        if (r.file, r.name) not in seen:
            continue
        own = seen[r.file, r.name]
        likeness = np.array([[max(views(a, b).values()) for b in own] for a in r.first])
        order = likeness.argmax(axis=1)
        crossed = [c for c in range(len(cameras)) if likeness[c, order[c]] > max(ALIKE, likeness[c, c] + MARGIN)]
        for c in crossed:
            what = f"{cameras[c]} shows what {cameras[order[c]]} sees"
            found.append((r.file, r.name, what, "swap the cameras' keys"))
        for c in set(range(len(cameras))) - set(crossed):
            scores.append(views(r.first[c], own[c])[AS_IT_IS])
            if view := other_view(r.first[c], own[c]):
                found.append((r.file, r.name, f"{cameras[c]} is {view}, compared with the simulator", _REMEDY[view]))
            elif _red_is_blue(r.first[c], own[c]):
                what = f"{cameras[c]} has red and blue swapped, compared with the simulator"
                found.append((r.file, r.name, what, "write RGB, not BGR (images[..., ::-1])"))
    note = f"{len(seen)} first pictures, likeness {np.mean(scores):.2f}" if scores else ""
    judged = Counter(r.file for r in recordings if (r.file, r.name) in elsewhere)
    said = Counter((file, what) for file, name, what, _ in found if (file, name) in elsewhere)
    found = [
        (file, name, what, remedy)
        for file, name, what, remedy in found
        if (file, name) not in elsewhere or 2 * said[file, what] >= judged[file]
    ]
    return Outcome("image orientation", together(found, counts(recordings)), note)


def other_view(picture: np.ndarray, reference: np.ndarray) -> str:
    """The view in which `picture` looks clearly more like `reference` than it does as it is, or ""."""
    scores = views(picture, reference)
    best = max(scores, key=lambda view: scores[view])
    return best if scores[best] > max(ALIKE, scores[AS_IT_IS] + MARGIN) else ""


def views(picture: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """View -> correlation of `picture` (H, W, 3), so turned, with `reference`, in [-1, 1]."""
    own, wanted = coarse(picture), coarse(reference)
    return {name: float((own[view] * wanted).mean()) for name, view in VIEWS.items()}


def _red_is_blue(picture: np.ndarray, reference: np.ndarray) -> bool:
    own, wanted = (means[..., 0] - means[..., 2] for means in (_means(picture), _means(reference)))
    size = float(np.sqrt((own**2).sum() * (wanted**2).sum()))
    return size > 0 and float((own * wanted).sum()) < OPPOSITE * size


def coarse(picture: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE, 3), each channel's mean 0, variance 1 over all: what different lighting leaves unchanged."""
    means = _means(picture)
    means -= means.mean(axis=(0, 1))
    return means / max(float(means.std()), 1e-9)


def _means(picture: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE, 3); pixels of smaller pictures are repeated."""
    rows, columns = (np.linspace(0, size, SIDE + 1)[:-1].astype(int) for size in picture.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(picture.astype(np.float64), rows, axis=0), columns, axis=1)
    high, wide = (np.diff([*ends, size]) for ends, size in zip((rows, columns), picture.shape[:2], strict=True))
    return sums / np.outer(np.maximum(high, 1), np.maximum(wide, 1))[..., None]
