"""What is true, in PostgreSQL: one module a noun, holding its queries and its verbs.

A verb writes a record, its event and the event's outbox row in one statement. Nothing here
commits but `store.transaction`.
"""
