"""Early exit in words: what it saves against a network cut that is as accurate, told alike by command line and report.

Nothing is imported, so that a command which only prints pays for nothing.
"""


def verdict(cut: str, macs_saved: float, times_saved: list[float]) -> str | None:
    """That early exit wins nothing against `cut` ("a network cut after layer 1"), the cheapest one that is as
    accurate on validation; None where it saves MACs. Savings are shares against that cut, of time by batch size."""
    if macs_saved > 0:
        return None
    if max(times_saved) > 0:
        macs = "fewer" if macs_saved < 0 else "as many"
        return f"{cut} is as accurate on validation and takes {macs} MACs: early exit saves no MACs here"
    less = "less" if min(macs_saved, *times_saved) < 0 else "the same"
    return f"{cut} is as accurate on validation and costs {less}: early exit saves nothing here"
