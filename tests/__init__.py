"""The tests of statekit; the folders mirror those of the library. ``tests/README.md`` says how to run them."""
