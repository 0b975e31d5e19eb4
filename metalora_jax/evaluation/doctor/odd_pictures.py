"""One episode against the others: does each camera show what it shows there?"""

from collections.abc import Iterator, Sequence

import numpy as np

from metalora_jax.adaptation.conventions import AS_IT_IS, VIEWS
from metalora_jax.evaluation.doctor import robust
from metalora_jax.evaluation.doctor.digest import STILL
from metalora_jax.evaluation.doctor.findings import Finding, Outcome
from metalora_jax.evaluation.doctor.group import FEWEST, Group
from metalora_jax.evaluation.doctor.odd_motion import CLEAR
from metalora_jax.evaluation.doctor.pictures import AGAIN, DARK, SAME, coarse

SAMENESS = 0.15  # of the usual change from one picture to the next: what compression adds to a picture shown again
TRAVEL, LONG = 0.5, 5  # of the usual span that the arm moves while a camera shows one picture, and for how many frames
STUTTER = 0.2  # share of pictures that repeat the one before in motion, more than usual
CLEARLY = 0.2  # of correlation by which another view, or another camera's, must fit better
ALIKE = 0.3  # correlation with it, at least
UNLIKE, FURTHER = 0.25, 2.5  # 1 - correlation with the nearest other first picture, and times what is usual

_OF_KEYS = "exchange the cameras' keys in this episode, or drop it"
_OF_SCENE = "look at its strip: was the camera moved, or is it another scene? Drop it if so"


def pictures(group: Group) -> Outcome:
    """Do all cameras show something, change as the robot moves, and see what they see in other episodes?"""
    cameras = tuple(group.layout.cameras)
    if not cameras:
        return Outcome("pictures", skipped="no camera")
    sizes = [r.digest.size for r in group.recordings]
    found = [*_contents(group, cameras), *_frozen(group, cameras)]
    if len({r.first.shape for r in group.recordings}) > 1:
        found.append(Finding(group.layout.name, "its pictures are of several sizes", "record one size", "warning"))
    elif len(group) >= FEWEST:
        blank = {(f.episodes[0]) for f in found if "even colour" in f.what and f.episodes}
        sound = [i for i, r in enumerate(group.recordings) if r.number not in blank]
        if len(sound) >= FEWEST:
            found += _scenes(group, cameras, sound)
    note = f"{', '.join(cameras)}; {', '.join(f'{h}x{w}' for h, w in sorted(set(sizes)))} px"
    return Outcome("pictures", tuple(found), note)


def _contents(group: Group, cameras: Sequence[str]) -> Iterator[Finding]:
    for i, r in enumerate(group.recordings):
        for c, camera in enumerate(cameras):
            if r.blank[c] > 0:
                what = f"{camera} shows one even colour in {r.blank[c]:.0%} of its pictures"
                yield group.finding(i, what, "error", AGAIN, {"share": r.blank[c]})
            elif r.first[c].max() < DARK:
                yield group.finding(
                    i, f"{camera} is nearly black", "warning", "values go from 0 to 255; light the scene"
                )
            for d in range(c):
                if np.abs(r.first[c].astype(float) - r.first[d]).mean() < SAME and not r.blank[c]:
                    what = f"{cameras[d]} and {camera} show the same picture"
                    yield group.finding(i, what, "error", "write each camera under its own key")


def _frozen(group: Group, cameras: Sequence[str]) -> Iterator[Finding]:
    speeds = [np.abs(np.diff(path[:, group.arm], axis=0)).max(axis=1, initial=0.0) for path in group.paths]
    for c, camera in enumerate(cameras):
        changes = [r.digest.change[:, c] for r in group.recordings]
        moving = [speed > np.median(speed) for speed in speeds]
        typical = np.array([np.median(v[m]) if m.any() else np.nan for v, m in zip(changes, moving, strict=True)])
        limit = np.maximum(SAMENESS * robust.usual(typical), STILL) if len(group) > 1 else np.array([STILL])
        still = [change < most for change, most in zip(changes, np.nan_to_num(limit, nan=STILL), strict=True)]
        share = np.array([s[m].mean() if m.any() else 0.0 for s, m in zip(still, moving, strict=True)])
        usual, away = (robust.usual(share), robust.apart(share, 0.02)) if len(group) > 1 else (share, 0 * share)
        for i, path in enumerate(group.paths):
            if group.recordings[i].blank[c] == 1:
                continue
            travel, frames = _travel(path[:, group.arm], still[i])
            if travel > TRAVEL:
                what = f"{camera} shows one picture for {frames} frames, while the robot moves"
                yield group.finding(i, what, "error", AGAIN, {"frames": frames, "travel": travel})
            elif share[i] - usual[i] > STUTTER and away[i] > CLEAR:
                what = f"{share[i]:.0%} of {camera}'s pictures repeat the one before in motion"
                remedy = "the camera was slower than the recorder; drop it, or record at the camera's rate"
                yield group.finding(i, what, "warning", remedy, {"share": share[i], "usual": usual[i]})


def _travel(path: np.ndarray, still: np.ndarray) -> tuple[float, int]:
    """How far the path (T, d) goes while the picture stays (T - 1,), at most, and for how many frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], still.astype(int), [0]])))
    best = (0.0, 0)
    for start, end in edges.reshape(-1, 2):
        part = path[start : end + 1]
        if part.shape[1] and len(part) > LONG:
            best = max(best, (float(np.ptp(part, axis=0).max()), int(end - start + 1)))
    return best


def _scenes(group: Group, cameras: Sequence[str], members: Sequence[int]) -> Iterator[Finding]:
    """First pictures against those of the other episodes, of the same camera and of the others."""
    seen = np.stack([[coarse(picture) for picture in group.recordings[i].first] for i in members])
    count, width = len(members), seen[0, 0].size
    usual = np.stack([[_normal(m) for m in np.median(np.delete(seen, k, 0), axis=0)] for k in range(count)])
    like = np.einsum("kcxyz,kdxyz->kcd", seen, usual) / width  # camera c of k with what d usually shows
    flat = seen.reshape(count, len(cameras), width)
    for k, i in enumerate(members):
        taken: set[int] = set()
        for c, d in _exchanged(like[k]):
            taken |= {c, d}
            what = f"{cameras[c]} and {cameras[d]} are swapped, compared with the other episodes"
            yield group.finding(i, what, "error", _OF_KEYS, {"own": like[k, c, c], "other": like[k, c, d]})
        for c in set(range(len(cameras))) - taken:
            views = {name: float((seen[k, c][view] * usual[k, c]).mean()) for name, view in VIEWS.items()}
            best = max(views, key=lambda name: views[name])
            lowest = np.delete(like[:, c, c], k).min()
            if best != AS_IT_IS and views[best] > max(ALIKE, views[AS_IT_IS] + CLEARLY) and views[AS_IT_IS] < lowest:
                what = f"{cameras[c]} is {best}, compared with the other episodes"
                figures = {"as_it_is": views[AS_IT_IS], "turned": views[best]}
                yield group.finding(i, what, "error", "turn its pictures back, or drop it", figures)
                continue
            near, theirs = robust.alone(1 - flat[:, c] @ flat[:, c].T / width)
            if near[k] > max(UNLIKE, FURTHER * theirs[k]):
                what = f"{cameras[c]}'s first picture is unlike those of the other episodes"
                yield group.finding(i, what, "warning", _OF_SCENE, {"distance": near[k], "usual": theirs[k]})


def _exchanged(like: np.ndarray) -> Iterator[tuple[int, int]]:
    for c in range(len(like)):
        for d in range(c):
            crossed, straight = like[c, d] + like[d, c], like[c, c] + like[d, d]
            if min(like[c, d] - like[c, c], like[d, c] - like[d, d]) > 0 and crossed - straight > 2 * CLEARLY:
                yield d, c


def _normal(picture: np.ndarray) -> np.ndarray:
    centred = picture - picture.mean(axis=(0, 1))
    return centred / max(float(centred.std()), 1e-9)
