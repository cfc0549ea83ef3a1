"""Early exit in words: what it saves against a network cut that is as accurate, told alike by command line and report.

Nothing is imported that takes time, so that a command which only prints pays for nothing.
"""

from typing import Any


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


def operating_point(content: dict[str, Any]) -> str:
    """What early_exit.json says of the operating point, in a line: what it saves, and at which accuracy."""
    if not content["available"]:
        return f"early exit: {content['reason']}"
    point, cuts, cut_depth = content["operating_point"], content["static_cuts"], content["reference_cut"]["depth"]
    test, cut, full = point["test"], cuts[cut_depth - 1]["test"], cuts[-1]["test"]
    where = f"a network cut after layer {cut_depth}" if cut_depth < len(cuts) else "full depth"
    if point["rule"] == "none":
        text = "early exit: no threshold takes fewer MACs than full depth and is as accurate on validation"
        if cut_depth == len(cuts):
            return f"{text}, nor does a network cut: nothing is saved; test accuracy {full['accuracy']:.2%}"
        return f"{text}, but {where} does, at {cut['accuracy']:.2%} on test; {_costs(cut, 'full depth', full, 'full')}"
    lost = verdict(where, test["macs_saved_share_vs_cut"], list(_times_saved(test, "cut").values()))
    return (
        f"early exit (rule {point['rule']}, k = {point['k']:g}; {point['choice']}): {lost + '; ' if lost else ''}"
        f"test accuracy {test['accuracy']:.2%}, {test['mean_layers']:.2f} layers on average; "
        f"{_costs(test, f'the cheapest cut as accurate on validation, after layer {cut_depth}', cut, 'cut')}; "
        f"{_costs(test, 'full depth', full, 'full')}"
    )


def _times_saved(row: dict[str, Any], base: str) -> dict[str, float]:
    return {size: row[f"time_saved_share_vs_{base}_batch_{size}"] for size in ("1", "32", "512")}


def _costs(row: dict[str, Any], name: str, base: dict[str, Any], base_key: str) -> str:
    """How much more (+) or less a test row takes than the row `base`."""
    # 0 less something: what is equal costs +0.00 %, not -0.00 %.
    more = {size: f"{0 - saved:+.1%}" for size, saved in _times_saved(row, base_key).items()}
    return (
        f"against {name} ({base['accuracy']:.2%}): {0 - row[f'macs_saved_share_vs_{base_key}']:+.2%} MACs, "
        f"{' / '.join(more.values())} time at batch {' / '.join(more)}"
    )
