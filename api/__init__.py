"""The HTTP edge: JSON in and out of the store's verbs. It never talks to Temporal."""
