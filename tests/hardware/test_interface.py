"""`from ff.hardware import …`: what is found there, what it loads, its fields, and what the monitor takes itself."""

import ast
import subprocess
import sys
from pathlib import Path

import fake_nvml
import pytest
from fake_boards import SAMPLES, FakeTree
from ff_process import ff_environment

import ff.hardware
from ff.hardware import FIELDS, Host, Ina3221, Nvml, Rapl, Recorder, parse_line
from ff.hardware.fields import EVERY, table
from ff.hardware.own_load import OwnLoad
from ff.hardware.sources import Choice

PAGE = Path(__file__).parents[2] / "docs/hardware.md"


def test_everything_that_is_offered_is_there():
    for name in ff.hardware._NAMES:
        assert name in dir(ff.hardware)
        assert getattr(ff.hardware, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ff.hardware.nothing


def test_the_readers_load_neither_torch_nor_pandas():
    """In a process of its own, reading all that this machine has."""
    names = ", ".join(ff.hardware._NAMES)
    code = (
        f"import sys\nfrom ff.hardware import {names}\n"
        "source = open_power_source()\n"
        "recorder = Recorder(None, 20, mode='monitor', listener=print)\n"
        "recorder.start(); import time; time.sleep(0.2); recorder.finish(); describe()\n"
        "print([name for name in ('torch', 'pandas', 'matplotlib', 'snakemake') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ff_environment(), capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_package_itself_loads_nothing():
    code = "import sys\nbefore = set(sys.modules)\nimport ff.hardware\nprint(sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=ff_environment(), capture_output=True, text=True, check=True
    )
    loaded = ast.literal_eval(done.stdout)
    assert [name for name in loaded if name.split(".")[0] not in sys.stdlib_module_names] == ["ff", "ff.hardware"]


# -- fields ----


def test_the_page_shows_the_fields_as_they_are():
    lines = PAGE.read_text().splitlines()
    start = lines.index(table()[0])
    assert lines[start : start + len(table())] == table()


def fields_of(source):
    return {field.name for field in FIELDS if source in field.meaning}


def read(source):
    """The fields of two readings of a source, apart from those of every sample."""
    source.open()
    try:
        seen = {name for _ in range(2) for reading in source.sample() for name in reading}
    finally:
        source.close()
    # It becomes shared_with.
    return seen - {"gpu_processes"} - fields_of(EVERY)


def test_each_field_comes_from_the_sources_that_the_table_names(tmp_path, monkeypatch):
    lines = [line for line in SAMPLES.read_text().splitlines() if line and not line.startswith("#")]
    assert {name for line in lines for name in parse_line(line)} | {"raw"} == fields_of("tegrastats")
    FakeTree(tmp_path / "board", "Orin Nano")
    assert read(Ina3221(tmp_path / "board")) == fields_of("ina3221")
    zone = tmp_path / "rapl/sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    for name, text in {"name": "package-0", "energy_uj": "1000", "max_energy_range_uj": "262143328850"}.items():
        (zone / name).write_text(text)
    assert read(Rapl(tmp_path / "rapl")) == fields_of("rapl")
    gpu = fake_nvml.Gpu(energy_mj=5, instant_mw=7, load=3, processes=(1,))
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml.FakeNvml(gpu))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert read(Nvml()) <= fields_of("nvml")
    assert {"power_mw", "energy_mj", "gpu", "gpu_percent"} <= read(Nvml())
    assert {"cpu_percent", "ram_used_mb", "ram_total_mb", "swap_used_mb"} <= read(Host()) <= fields_of("psutil")


# -- the monitor's own load ----


def stat(folder, number, user, system):
    (folder / str(number)).mkdir(exist_ok=True)
    (folder / str(number) / "stat").write_text(
        f"{number} (tegra) stats) S 1 1 1 0 -1 4194304 9 0 0 0 {user} {system} 7 7"
    )


def test_own_load_is_the_time_of_the_process_and_its_programs_over_the_time_that_passed(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_CLK_TCK": 100}[name])
    now = {"clock": 10.0, "own": 3.0}
    load = OwnLoad(lambda: now["clock"], lambda: now["own"], tmp_path)
    assert load.percent() is None
    now |= {"clock": 14.0, "own": 3.1}
    assert load.percent() == 2.5
    # A program counts from its start, then from the look before; what is gone does not count.
    stat(tmp_path, 7, 10, 20)
    now |= {"clock": 18.0, "own": 3.2}
    assert load.percent([7, 8]) == 10.0
    stat(tmp_path, 7, 20, 22)
    now |= {"clock": 20.0}
    assert load.percent([7]) == 6.0
    stat(tmp_path, 7, 1, 1)
    now |= {"clock": 21.0}
    assert load.percent([7]) == 0.0


class Program:
    """A source that reads a program."""

    name, title, method, period_s, fd, pid = "program", "program", None, 0.1, None, 4711

    def open(self):
        pass

    def sample(self):
        return [{"cpu_percent": [1.0]}]

    close = open


def test_the_monitor_counts_the_programs_that_it_reads_and_a_job_says_nothing_of_itself(monkeypatch):
    asked = []
    monkeypatch.setattr(OwnLoad, "percent", lambda self, programs=(): asked.append([*programs]) or 1.5)
    for mode, expected in (("monitor", {"program", "monitor"}), ("inline", {"program"})):
        records = []
        recorder = Recorder(None, 5, mode=mode, choice=Choice([Program()], []), listener=records.append)
        recorder.start()
        while len([record for record in records if record["kind"] == "sample"]) < 4:
            pass
        recorder.finish()
        assert {record["source"] for record in records if record["kind"] == "sample"} == expected
    assert asked and all(programs == [4711] for programs in asked)
