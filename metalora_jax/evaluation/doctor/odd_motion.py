"""One episode against the others: how long, how still, how smooth, and which way."""

from collections.abc import Iterator, Sequence

import numpy as np

from metalora_jax.data import signals
from metalora_jax.data.signals import Idle
from metalora_jax.evaluation.doctor import robust
from metalora_jax.evaluation.doctor.findings import Finding, Outcome
from metalora_jax.evaluation.doctor.group import Group

CLEAR = 4.0  # spreads from the others' median: 1 in 16,000 of a normal distribution, and few medians are exact
LONGER = 1.9  # factor of duration; people who record vary by less, and fumbles are worth a look
IDLE, IDLER = 0.25, 0.15  # share of an episode in which nothing moves at one end, and by how much more than usual
PAUSE, LONGER_PAUSE = 0.4, 0.2  # the same inside
ROUGH = 2.2  # factor of unevenness; episodes led faster or slower by hand reach 1.6
NOISY = 2.4  # the same in its quietest quarter, where noise shows first; pauses and tremble vary more
ROUGH_JOINT = 3.0  # factor for one dimension alone
JUMP, LEAP = 0.15, 2.5  # of the usual span, or its own, from one frame to the next; times the others' largest step
FARTHER, SUDDEN = 1.2, 3.0  # times the others' largest step, where it is as many times the steps beside it
GAPS = 0.06  # share of quick steps that are longer than their neighbours, more than usual: frames are missing
CHANCE = 5.0  # standard deviations of such a share: in short episodes quick moves of few frames look alike
AGAIN = 0.15  # share of rows that repeat the one before, more than usual
UNLIKE, FURTHER = 0.12, 2.2  # of the usual span to the nearest other episode, and times what is usual
POSE, POSE_FURTHER = 0.4, 3.0  # the same for first and last poses
SEVERAL = 8  # episodes of a task: of fewer, each may be the only one with its start or goal
BACKWARDS = 0.6  # of that distance remains when the episode is turned around in time
ALIKE, SHARED = 0.12, 0.5  # of the usual distance of neighbours, and share of equal states: duplicates
_EVEN = 5e-4  # of the usual span, added before unevenness is compared: smoother than that is all the same
_QUIET = 2e-3  # the same for the quietest quarter

_TRIM = "cut the frames in which nothing moves, or drop it: a policy learns to stand still from them"
_WHICH = "look at its strip; drop it if it shows another motion, or move it to the task that it shows"


def durations(group: Group) -> Outcome:
    """Is none much longer or shorter than the others of its task?"""
    found = []
    for members in group.tasks():
        logs = np.log(group.steps[members])
        away, usual = robust.apart(logs, 0.12), np.exp(robust.usual(logs))
        for k, i in enumerate(members):
            factor = group.steps[i] / usual[k]
            if abs(np.log(factor)) > np.log(LONGER) and abs(away[k]) > CLEAR:
                what = f"it has {group.steps[i]} frames, the others about {usual[k]:.0f}"
                long = "look for fumbling or waiting; cut or drop it"
                remedy = long if factor > 1 else "look whether it was cut short, or failed; drop it"
                figures = {"frames": group.steps[i], "usual": usual[k], "spreads": away[k]}
                found.append(group.finding(i, what, "warning", remedy, figures))
    low, middle, high = np.quantile(group.steps, [0, 0.5, 1])
    return Outcome("durations", tuple(found), f"{low:.0f} to {high:.0f} frames, median {middle:.0f}{_compared(group)}")


def idle_ends(group: Group, idle: Sequence[Idle] | None = None) -> Outcome:
    """Does none stand still for long where the others move? By default, for as long as `group.idle` says."""
    idle = group.idle if idle is None else idle
    shares = np.array(idle) / group.steps[:, None]
    away, usual = robust.apart(shares, 0.03), robust.usual(shares)
    limits = ((IDLE, IDLER), (PAUSE, LONGER_PAUSE), (IDLE, IDLER))
    places = ("at the start", "in the middle", "at the end")
    found = []
    for i, share in enumerate(shares):
        for p, (least, more) in enumerate(limits):
            if share[p] > least and share[p] - usual[i, p] > more and away[i, p] > CLEAR:
                what = f"nothing moves for {share[p]:.0%} of it {places[p]}, in the others for {usual[i, p]:.0%}"
                figures = {"share": share[p], "usual": usual[i, p], "frames": idle[i][p]}
                found.append(group.finding(i, what, "warning", _TRIM, figures))
    middle = np.median(shares, axis=0)
    note = f"median {middle[0]:.0%} at the start, {middle[2]:.0%} at the end, longest pause {middle[1]:.0%}"
    return Outcome("idle ends", tuple(found), note)


def smoothness(group: Group) -> Outcome:
    """Does none have noise, gaps, jumps or repeated rows that the others have not?"""
    if not group.state.active.any():
        return Outcome("smoothness", skipped="nothing moves in the state")
    found = [*_noise(group), *_gaps(group), *_jumps(group), *_repeats(group)]
    largest = max(float(signals.largest_step(path).max()) for path in group.paths)
    return Outcome("smoothness", tuple(found), f"largest step {largest:.0%} of a dimension's usual span")


def _noise(group: Group) -> Iterator[Finding]:
    rough = np.log(np.stack([signals.roughness(path) for path in group.paths]) + _EVEN)
    quiet = np.log(np.array([np.median(signals.tremble(path)) for path in group.paths]) + _QUIET)
    over, louder = rough - robust.usual(rough), quiet - robust.usual(quiet)
    whole, commands = np.median(over, axis=1), _of_commands(group)
    clear, clear_quiet = robust.apart(np.median(rough, axis=1), 0.12), robust.apart(quiet, 0.2)
    alone = robust.apart(rough - whole[:, None], 0.12)
    for i in range(len(group)):
        if whole[i] > np.log(ROUGH) and clear[i] > CLEAR:
            both = commands[i] > 0.5 * whole[i]
            cause = "state and actions alike: dropped frames?" if both else "noise in the state?"
            what = f"its motion is {np.exp(whole[i]):.1f} times as uneven as the others', {cause}"
            yield group.finding(i, what, "warning", figures={"times": np.exp(whole[i]), "spreads": clear[i]})
        elif louder[i] > np.log(NOISY) and clear_quiet[i] > CLEAR + 1:
            what = (
                f"it trembles {np.exp(louder[i]):.1f} times as much as the others where it is slow: noise in the state?"
            )
            yield group.finding(i, what, "warning", figures={"times": np.exp(louder[i]), "spreads": clear_quiet[i]})
        else:
            odd = (over[i] - max(whole[i], 0) > np.log(ROUGH_JOINT)) & (alone[i] > CLEAR + 2)
            for j in np.flatnonzero(odd & group.arm):
                what = f"{group.active[j]} moves {np.exp(over[i, j]):.1f} times as unevenly as in the others: noise?"
                yield group.finding(i, what, "warning", figures={"times": np.exp(over[i, j]), "spreads": alone[i, j]})


def _of_commands(group: Group) -> np.ndarray:
    """(n,) by how much the actions are more uneven than the others', as a logarithm."""
    if not group.action.active.any():
        return np.zeros(len(group))
    rough = [np.median(signals.roughness(group.action.unit(r.actions))) for r in group.recordings]
    logs = np.log(np.array(rough) + _EVEN)
    return logs - robust.usual(logs)


def _gaps(group: Group) -> Iterator[Finding]:
    share = np.array([signals.gaps(path) for path in group.paths])
    away, usual = robust.apart(share, 0.01), robust.usual(share)
    quick = (group.steps - 2) / 2
    chance = CHANCE * np.sqrt(np.maximum(usual, GAPS / 2) / np.maximum(quick, 1))
    for i in np.flatnonzero((share - usual > np.maximum(GAPS, chance)) & (away > CLEAR)):
        what = f"{share[i]:.0%} of its quick steps are longer than both neighbours, in the others {usual[i]:.0%}"
        figures = {"share": share[i], "usual": usual[i]}
        yield group.finding(int(i), f"{what}: dropped frames?", "warning", figures=figures)


def _jumps(group: Group) -> Iterator[Finding]:
    steps = np.stack([signals.largest_step(path) for path in group.paths])
    for i in range(len(group)):
        others = np.delete(steps, i, axis=0).max(axis=0)
        sudden = signals.suddenness(group.paths[i])
        far = (steps[i] > LEAP * others) | ((steps[i] > FARTHER * others) & (sudden > SUDDEN))
        reach = np.maximum(np.ptp(group.paths[i], axis=0), 1)  # a dimension that goes far in all does so without a jump
        for j in np.flatnonzero((steps[i] > JUMP * reach) & far & group.arm)[:1]:
            frame = int(np.abs(np.diff(group.paths[i][:, j])).argmax())
            what = f"{group.active[j]} jumps by {steps[i, j]:.0%} of its usual span after frame {frame}"
            figures = {"step": steps[i, j], "others": others[j], "frame": frame}
            yield group.finding(i, what, "error", figures=figures)


def _repeats(group: Group) -> Iterator[Finding]:
    share = np.zeros(len(group))
    for i, r in enumerate(group.recordings):
        inner = slice(group.idle[i].start, len(r.state) - group.idle[i].end)
        same = signals.repeats(r.state[inner], r.actions[inner])
        share[i] = same.mean() if len(same) else 0.0
    away, usual = robust.apart(share, 0.02), robust.usual(share)
    for k in np.flatnonzero((share - usual > AGAIN) & (away > CLEAR)):
        what = f"{share[k]:.0%} of its rows repeat the one before, in the others {usual[k]:.0%}"
        remedy = "the recorder could not keep up; drop it, or thin it out to its true rate"
        yield group.finding(int(k), what, "warning", remedy, {"share": share[k], "usual": usual[k]})


def paths(group: Group) -> Outcome:
    """Is each episode's path near another's of the same task, and from and to poses as others?"""
    found, compared = [], 0
    for members in group.tasks():
        if not group.state.active.any():
            continue
        compared += len(members)
        whole = np.stack([signals.resampled(group.moving(i)) for i in members])
        ends = {"starts": np.stack([group.paths[i][:3].mean(0) for i in members])}
        ends["ends"] = np.stack([group.paths[i][-3:].mean(0) for i in members])
        near, theirs = robust.alone(robust.between(whole))
        for k, i in enumerate(members):
            turned = np.sqrt(((whole[k, ::-1] - np.delete(whole, k, 0)) ** 2).mean(axis=(1, 2))).min()
            figures = {"distance": near[k], "usual": theirs[k]}
            if near[k] > max(UNLIKE, theirs[k]) and turned < BACKWARDS * near[k]:
                what = "its path is that of the others backwards: reversed in time"
                found.append(group.finding(i, what, "error", figures=figures | {"backwards": turned}))
            elif len(members) < SEVERAL:
                continue
            elif near[k] > max(UNLIKE, FURTHER * theirs[k]):
                what = f"its path is {near[k] / theirs[k]:.1f} times as far from the nearest other as is usual"
                found.append(group.finding(i, f"{what}: another motion?", "warning", _WHICH, figures))
            else:
                found += _poses(group, k, i, ends)
    note = f"{compared} episodes compared{_compared(group)}"
    return Outcome("paths", tuple(found), note, "" if compared else "too few episodes of one task")


def _poses(group: Group, k: int, i: int, ends: dict[str, np.ndarray]) -> Iterator[Finding]:
    for verb, poses in ends.items():
        far = np.abs(poses[:, None] - poses[None]).max(-1)
        near, theirs = robust.alone(far)
        if near[k] > max(POSE, POSE_FURTHER * theirs[k]):
            other = int((far[k] + np.where(np.arange(len(far)) == k, np.inf, 0)).argmin())
            name = group.active[int(np.abs(poses[k] - poses[other]).argmax())]
            what = f"it {verb} where no other does: {name} is off by {near[k]:.0%} of its usual span"
            yield group.finding(i, what, "warning", _WHICH, {"distance": near[k], "usual": theirs[k]})


def duplicates(group: Group) -> Outcome:
    """Is no episode there twice?"""
    whole = np.stack([signals.resampled(np.concatenate([r.state, r.actions], axis=1)) for r in group.recordings])
    whole = whole / np.concatenate([group.state.span, group.action.span])
    apart = robust.between(whole) + np.diag(np.full(len(group), np.inf))
    near = np.sort(apart.min(axis=1))
    usual = float(np.median(near))  # of nearest neighbours
    found = []
    for i, j in np.argwhere(np.triu(apart < max(ALIKE * usual, 1e-6))):
        shared = signals.shared(group.recordings[i].state, group.recordings[j].state)
        same = shared > SHARED
        what = f"it is the same as {group.recordings[i].name}: {shared:.0%} of its states are equal"
        if not same:
            what = f"it is nearly the same as {group.recordings[i].name}"
        figures = {"other": group.recordings[i].number, "distance": apart[i, j], "usual": usual, "shared": shared}
        remedy = "keep one of them" if same else "fine if a script began twice from nearly the same start"
        found.append(group.finding(j, what, "warning" if same else "info", remedy, figures))
    note = f"nearest neighbours {usual:.2f} of the usual spans apart"
    return Outcome("duplicates", tuple(found), note)


def _compared(group: Group) -> str:
    left = len(group) - sum(len(members) for members in group.tasks())
    return f"; {left} of tasks with too few to compare" if left else ""
