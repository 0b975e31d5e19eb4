"""From a place and attitude of the SO-101's gripper to joint angles: damped least squares on the MuJoCo model.

Wampler, "Manipulator inverse kinematic solutions based on vector formulations and damped least-squares methods" (1986).
Five joints cannot reach every attitude: an error in it counts less than one in place, by metres for each radian.
"""

from typing import Any, NamedTuple

import numpy as np

ARM = 5  # joints, without the gripper
_DAMPING = 3e-3  # [m]
_ROUNDS, _ENOUGH = 40, 1e-5  # iterations at most, and the error [m] that ends them
_FULL_STEP = 0.3  # [rad] of any joint in one iteration


class Pose(NamedTuple):
    """Of the gripper."""

    place: np.ndarray  # (3,) [m] of a point fixed in it
    jaw: np.ndarray  # (3,) unit vector along which it opens; it approaches straight down
    attitude: float = 0.03  # [m/rad] what an error in attitude counts, beside one in place


class Arm:
    """The kinematics of a `mujoco.MjModel` whose first five joints are the SO-101's; it moves nothing."""

    def __init__(self, model: Any):
        """Prepares scratch data."""
        import mujoco

        self._mujoco, self._model, self._scratch = mujoco, model, mujoco.MjData(model)
        self._body = model.body("gripper").id
        self._range = model.jnt_range[:ARM]

    def _at(self, joints: np.ndarray, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place (3,) of a `point` of the gripper's frame, and that frame (3, 3), at `joints` (5,) [rad]."""
        data = self._scratch
        data.qpos[:ARM] = joints
        self._mujoco.mj_kinematics(self._model, data)
        self._mujoco.mj_comPos(self._model, data)
        frame = data.xmat[self._body].reshape(3, 3)
        return data.xpos[self._body] + frame @ point, frame

    def pose(self, joints: np.ndarray, point: np.ndarray) -> Pose:
        """Where `point` [m, in the gripper's frame] is at `joints` (5,) [rad], and how the gripper opens there."""
        place, frame = self._at(joints, point)
        return Pose(place.copy(), frame[:, 0].copy())

    def solve(self, wanted: Pose, start: np.ndarray, point: np.ndarray) -> np.ndarray:
        """Joint angles (5,) [rad] within their ranges that bring `point` to a pose as nearly as can be.

        Args:
          wanted: the pose.
          start: (5,) [rad], from where it is searched.
          point: (3,) [m], in the gripper's frame.
        """
        joints = start.copy()
        moves, turns = np.zeros((3, self._model.nv)), np.zeros((3, self._model.nv))
        frame_wanted = np.stack([wanted.jaw, np.cross([0.0, 0.0, 1.0], wanted.jaw), [0.0, 0.0, 1.0]], axis=1)
        for _ in range(_ROUNDS):
            place, frame = self._at(joints, point)
            turn = sum(np.cross(frame[:, k], frame_wanted[:, k]) for k in range(3)) / 2
            error = np.concatenate([wanted.place - place, wanted.attitude * turn])
            self._mujoco.mj_jac(self._model, self._scratch, moves, turns, place, self._body)
            slope = np.concatenate([moves[:, :ARM], wanted.attitude * turns[:, :ARM]])
            free = np.ones(ARM, bool)
            for _ in range(2):  # a joint that would leave its range is held, and the others make up for it
                held = np.where(free, slope, 0.0)
                change = held.T @ np.linalg.solve(held @ held.T + _DAMPING**2 * np.eye(6), error)
                change *= min(1.0, _FULL_STEP / max(np.abs(change).max(), 1e-9))
                free &= (joints + change >= self._range[:, 0]) & (joints + change <= self._range[:, 1])
            joints = np.clip(joints + change, *self._range.T)
            if np.abs(change).max() < _ENOUGH:
                break
        return joints
