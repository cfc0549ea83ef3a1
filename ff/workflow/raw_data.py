"""Whether a prepared set is still what would be made from the raw files that there are now."""

import time
from pathlib import Path

from ff.data.raw_files import recorded, wanted_source
from ff.errors import FFError
from ff.layout import prepared_set


def other_raw_data(dataset: str, data_dir: str) -> list[str]:
    """A file that is new where the prepared set was made from other raw files than those in `data_dir`, else nothing.

    As an input it makes Snakemake prepare the set again. Params would not do: Snakemake knows none of a set that `ff`
    has prepared. Raises FFError where the prepared set cannot be replaced.
    """
    path = Path(prepared_set(dataset))
    known = (recorded(path) or {}) if path.exists() else None
    if known is None or known.get("source") == wanted_source(dataset, Path(data_dir), path):
        return []
    marker = path.with_name(f".{dataset}.made-from-other-files")
    try:
        # Snakemake takes a small file with the same content for the same file.
        marker.write_text(f"{time.time_ns()}\n")
    except OSError as error:
        raise FFError(
            f"{path} was made from other files than those in {data_dir}, and cannot be replaced "
            f"({error.strerror}); give the data_dir that it was made from, or another working folder"
        ) from None
    return [str(marker)]
