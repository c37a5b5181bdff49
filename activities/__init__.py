"""What acts: activity functions, in SQL only, each idempotent under a named key."""
