"""What doctor looks at: facts gathered here, judged in policy."""
