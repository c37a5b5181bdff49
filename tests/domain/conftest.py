"""Properties are judged by what they find, not by how fast a busy machine looks."""

from hypothesis import settings

settings.register_profile("domain", deadline=None, max_examples=60)
settings.load_profile("domain")
