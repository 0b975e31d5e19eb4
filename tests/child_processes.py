"""What the programs that a test starts are given besides the test's own environment."""

# What one program has compiled, however small, the next one finds. Within a test process the limit of `conftest` is
# better: there, small programs are compiled once anyhow.
COMPILED_ONCE = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
