"""The garbage collector of a process that runs for years."""

import gc

_YOUNG = 20_000
"""New objects before they are looked at: more than a batch of the relay makes and throws away."""


def settle() -> None:
    """Once all is imported: what is there stays for good, so no collection looks at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)
