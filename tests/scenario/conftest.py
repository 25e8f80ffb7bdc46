"""The wrong scenarios are material of tests, not tests."""

collect_ignore_glob = ["bad/*"]
