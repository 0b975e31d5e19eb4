"""The world `so101`: the SO-101, an arm of six servos, with cubes and markers; absolute joint targets."""

from metalora_jax.envs.so101.simulator import WORLD as WORLD
