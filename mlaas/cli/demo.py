"""`mlaas demo`: the main job from end to end, as a newcomer would do it by hand."""


def demo() -> None:
    """Train, register, serve and talk to a small language model on this machine."""
