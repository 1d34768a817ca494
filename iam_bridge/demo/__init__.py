"""The demo: an embedded IAM and the story that is told on it."""
