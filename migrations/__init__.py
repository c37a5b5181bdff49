"""The schema's history: roles first, then versions, one way up and one way down."""
