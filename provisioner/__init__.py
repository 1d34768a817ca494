"""From IAM groups to accounts: gather facts, decide, guard, apply, read back, tell the services."""
