"""`make demo`: the main job end to end on real processes, in time-lapse, with its own proof."""


async def run(*, seed: int, keep: bool) -> bool:
    """The whole demo; True if every invariant held. With `keep` it serves on until Ctrl-C."""
    from cli.demo import play  # here, because the mail server's process has no use for it

    return await play.run(seed=seed, keep=keep)
