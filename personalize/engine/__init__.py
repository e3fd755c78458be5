"""Token ids in, token ids out: many sequences at once, every one under its own adapter version."""
