"""Makes pytest collect `scenarios/*.yaml`."""

pytest_plugins = ["harness.pytest_plugin"]
