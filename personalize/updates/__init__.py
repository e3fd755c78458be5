"""The durable queue's consumer: follow-ups to lessons to published versions, one update in flight per user."""
