"""A recorded moment is brought back whole, with the fixtures that no state holds."""

import numpy as np
import pytest

from metalora_jax.envs.libero import Libero
from metalora_jax.envs.libero_restore import restore

# robosuite writes a model to a file, and does not close it.
LEFT_OPEN = pytest.mark.filterwarnings("ignore:.*model.xml:pytest.PytestUnraisableExceptionWarning")
pytestmark = [pytest.mark.libero, LEFT_OPEN]


def test_a_recorded_moment_goes_on_as_it_did():
    commands = np.random.default_rng(0).uniform(-1, 1, (12, 7))
    with Libero("put_the_bowl_on_the_stove", cameras=(), settle_steps=2) as env:
        simulator = env.simulator.sim
        env.reset(77)
        for command in commands[:4]:
            env.step(command)
        state, model = simulator.get_state().flatten(), simulator.model.get_xml()
        places = simulator.data.body_xpos.copy()

        def go_on():
            for command in commands[4:]:
                env.step(command)
            return simulator.data.qpos.copy()

        wanted = go_on()
        restore(env, state)
        assert np.abs(simulator.data.body_xpos - places).max() > 1e-3  # the fixtures stand elsewhere
        restore(env, state, model)
        # Places are those of before the last step of physics, 2 ms ago, where a moment was reached by stepping.
        np.testing.assert_allclose(simulator.data.body_xpos, places, atol=2e-3)
        np.testing.assert_allclose(go_on(), wanted, atol=5e-3)
        for bad, text, complaint in (
            (state[:-1], model, "is not of its scene"),
            (state, "<mujoco><worldbody><body name='moon'/></worldbody></mujoco>", "'moon', which is not in its scene"),
            (state, model[: len(model) // 2], "not MuJoCo's XML"),
        ):
            with pytest.raises(ValueError, match=complaint):
                restore(env, bad, text)
