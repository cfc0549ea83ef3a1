"""What starts a process sooner, seen from processes."""

import subprocess
import sys


def test_the_collector_passes_over_what_was_imported_and_works_again_afterwards():
    code = (
        "import gc\nfrom ff.imports import heavy_imports\n"
        "try:\n    with heavy_imports():\n        assert not gc.isenabled()\n        import json.missing\n"
        "except ImportError:\n    pass\n"
        "assert gc.isenabled()\nassert gc.get_freeze_count() > 1000\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
