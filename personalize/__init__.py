"""Per-user personalization: a small LoRA adapter for every user, taught by the user's own follow-ups."""
