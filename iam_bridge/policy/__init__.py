"""Pure decisions: (facts, rules, now) → value. No clock, no files, no network, no third party."""
