"""Round trips and parity with the packages of others, in an environment of its own (`make test-interop`)."""
