"""What waits. Tiny and deterministic: the rows say what is true, a workflow only when to look again."""
