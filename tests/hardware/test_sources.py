"""The sensors one by one, on trees of files of machines that are not there, and which of them a machine gets."""

import os
import sys
import types
from pathlib import Path

import pytest
from fake_boards import BOARDS, FakeTree, curve_mw, follow_curve, install_fake_tegrastats, wait_until
from fake_nvml import FakeNvml, Gpu

from ff import doctor
from ff.hardware import SensorMissing
from ff.hardware.host import Host
from ff.hardware.ina3221 import Ina3221
from ff.hardware.log import read_log
from ff.hardware.nvml import Nvml
from ff.hardware.rapl import Rapl
from ff.hardware.recorder import Recorder
from ff.hardware.sharing import Job, Presence
from ff.hardware.sources import Choice, choose, is_board, is_jetson, open_power_source
from ff.hardware.tegrastats import Tegrastats


@pytest.mark.parametrize("board", BOARDS)
def test_power_monitors_of_each_board(tmp_path, monkeypatch, board):
    monkeypatch.setattr("fake_boards.curve_mw", lambda now: 8000.0)
    FakeTree(tmp_path, board)
    source = Ina3221(tmp_path)
    source.open()
    (reading,) = source.sample()
    expected = {label: 8000 * share for _, label, share in BOARDS[board][1] if label != "NC"}
    assert reading["power_mw"] == pytest.approx(expected)


def test_a_channel_without_power_file_is_voltage_times_current(tmp_path):
    chip = tmp_path / "sys/bus/i2c/drivers/ina3221x/1-0040/iio:device0"
    chip.mkdir(parents=True)
    for name, text in {
        "rail_name_0": "VDD_IN",
        "in_voltage0_input": "19000",
        "in_current0_input": "500",
    }.items():
        (chip / name).write_text(text + "\n")
    source = Ina3221(tmp_path)
    source.open()
    assert source.sample() == [{"power_mw": {"VDD_IN": 9500.0}}]


def test_a_power_file_in_microwatts_is_preferred(tmp_path):
    chip = tmp_path / "sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon5"
    chip.mkdir(parents=True)
    values = {"in1_label": "VIN", "in1_input": "19000", "curr1_input": "500", "power1_input": "9600000"}
    for name, text in values.items():
        (chip / name).write_text(text + "\n")
    source = Ina3221(tmp_path)
    source.open()
    assert source.sample() == [{"power_mw": {"VIN": 9600.0}}]


def test_rails_that_stop_answering_are_left_out(tmp_path):
    FakeTree(tmp_path, "Xavier NX")
    source = Ina3221(tmp_path)
    source.open()
    files = sorted(tmp_path.rglob("in_power*_input"))
    files[1].unlink()
    files[1].symlink_to("/proc/self/mem")  # reading fails with EIO
    assert set(source.sample()[0]["power_mw"]) == {"VDD_IN", "VDD_SOC"}
    files[0].write_text("garbage\n")
    files[2].write_bytes(b"\xff\xfe")
    with pytest.raises(OSError, match="no INA3221 channel answers"):
        source.sample()


def test_a_machine_without_power_monitors_says_so(tmp_path):
    with pytest.raises(SensorMissing, match="no INA3221"):
        Ina3221(tmp_path).open()


def rapl_tree(root, energies, limit=1_000_000):
    """{zone: (name, energy_uj)}"""
    for zone, (name, energy) in energies.items():
        folder = root / "sys/class/powercap" / zone
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "name").write_text(name + "\n")
        (folder / "energy_uj").write_text(f"{energy}\n")
        (folder / "max_energy_range_uj").write_text(f"{limit}\n")


def test_rapl_counts_over_a_wrap(tmp_path, monkeypatch):
    clock = iter([100.0, 102.0, 104.0])
    fake_time = types.SimpleNamespace(monotonic=lambda: next(clock), time=lambda: 1.0)
    monkeypatch.setattr("ff.hardware.rapl.time", fake_time)
    rapl_tree(
        tmp_path,
        {
            "intel-rapl:0": ("package-0", 900_000),
            "intel-rapl:0:0": ("core", 10),
            "intel-rapl:0:1": ("dram", 0),
            "intel-rapl-mmio:0": ("package-0", 1),
        },
    )
    source = Rapl(tmp_path)
    source.open()
    first = source.sample()[0]
    assert "power_mw" not in first
    assert set(first["energy_mj"]) == {"package-0", "package-0/core", "package-0/dram"}
    rapl_tree(tmp_path, {"intel-rapl:0": ("package-0", 100_000), "intel-rapl:0:1": ("dram", 50_000)})
    second = source.sample()[0]
    assert second["energy_mj"]["package-0"] == pytest.approx(200)
    assert second["power_mw"]["package-0"] == pytest.approx(100)
    assert second["power_mw"]["package-0/dram"] == pytest.approx(25)
    for path in tmp_path.rglob("energy_uj"):
        path.unlink()
    with pytest.raises(OSError, match="no RAPL counter answers"):
        source.sample()


def test_rapl_without_permission_says_what_would_help(tmp_path, monkeypatch):
    rapl_tree(tmp_path, {"intel-rapl:0": ("package-0", 900_000)})

    read = Path.read_text

    def denied(path):
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(SensorMissing, match="chmod a\\+r"):
        Rapl(tmp_path).open()


def test_a_machine_without_rapl_says_so(tmp_path):
    with pytest.raises(SensorMissing, match="no RAPL"):
        Rapl(tmp_path).open()


def test_the_host_is_read():
    source = Host()
    source.open()
    (reading,) = source.sample()
    assert len(reading["cpu_percent"]) == os.cpu_count()
    assert 0 < reading["ram_used_mb"] < reading["ram_total_mb"]
    source.close()


def test_which_sources_a_machine_gets(tmp_path):
    assert not is_jetson(tmp_path)
    assert [source.name for source in choose(500, tmp_path).first] == ["rapl"]
    FakeTree(tmp_path, "Orin Nano")
    assert is_jetson(tmp_path)
    choice = choose(500, tmp_path)
    assert [source.name for source in choice.first] == ["tegrastats"]
    assert [source.name for source in choice.instead] == ["ina3221"]
    with pytest.raises(SensorMissing, match="tegrastats is not on this machine"):
        choice.first[0].open()


def test_any_other_machine_is_read_by_psutil_rapl_and_nvml(monkeypatch):
    monkeypatch.setattr("ff.hardware.sources.is_board", lambda root: False)
    choice = choose()
    assert [source.name for source in choice.first] == ["psutil", "rapl", "nvml"]
    assert choice.instead == []


@pytest.mark.parametrize("hidden", ["release", "release and chips"])
def test_a_container_on_a_board_is_a_board(tmp_path, hidden):
    """Docker hides the device tree, and an image need not have the release file."""
    if hidden == "release":
        FakeTree(tmp_path, "Orin Nano")
        (tmp_path / "etc/nv_tegra_release").unlink()
    else:
        install_fake_tegrastats(tmp_path / "usr/bin", follow_curve("Orin Nano"))
    assert not is_jetson(tmp_path)
    assert is_board(tmp_path)
    assert choose(500, tmp_path).first[0].name == "tegrastats"


SAYS_NOTHING = "time.sleep(60)\n"
NO_POWER = "while True:\n    say('RAM 1/2MB CPU [1%@2]')\n    time.sleep(0.01)\n"


def jetson(root, tegrastats, chips=True):
    if chips:
        FakeTree(root, "Orin Nano")
    else:
        (root / "etc").mkdir()
        (root / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3\n")
    if tegrastats is not None:
        install_fake_tegrastats(root / "usr/bin", tegrastats)


def pc(root, rapl=True, tegrastats=None):
    root.mkdir(exist_ok=True)
    if rapl:
        rapl_tree(root, {"intel-rapl:0": ("package-0", 900_000)}, limit=10**9)
    if tegrastats is not None:
        install_fake_tegrastats(root / "usr/bin", tegrastats)


MACHINES = {
    "a Jetson": (lambda root: jetson(root, follow_curve("Orin Nano")), "tegrastats"),
    "a Jetson whose tegrastats has no power": (lambda root: jetson(root, NO_POWER), "ina3221"),
    "a Jetson whose tegrastats is silent": (lambda root: jetson(root, SAYS_NOTHING), "ina3221"),
    "a Jetson without tegrastats": (lambda root: jetson(root, None), "ina3221"),
    "a Jetson without power monitors": (
        lambda root: jetson(root, follow_curve("Orin Nano"), chips=False),
        "tegrastats",
    ),
    "a PC": (pc, "rapl"),
    "a PC with a tegrastats on its PATH": (lambda root: pc(root, tegrastats=NO_POWER), "rapl"),
    "a PC with a tegrastats that ends": (lambda root: pc(root, tegrastats="sys.exit(1)\n"), "rapl"),
    "a container on a Jetson": (lambda root: pc(root, rapl=False, tegrastats=follow_curve("Nano")), "tegrastats"),
    "a PC without sensors": (lambda root: pc(root, rapl=False), None),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_training_measuring_and_the_doctor_take_the_same_sensor(tmp_path, monkeypatch, machine):
    monkeypatch.setattr("ff.hardware.sources.FIRST_LINE_S", 0.3)
    root = tmp_path / "machine"
    root.mkdir()
    make, expected = MACHINES[machine]
    make(root)

    def of_the_doctor():
        (row,) = [row for row in doctor.check_sensors(root) if row.name == "power"]
        return row.detail.partition("measured by ")[2].partition(":")[0] or None

    def of_a_measurement():
        source = open_power_source(root)
        if source is not None:
            source.close()
        return source.name if source is not None else None

    def of_a_training():
        log = tmp_path / "log.jsonl"
        recorder = Recorder(log, 20, root, silent_after_s=0.2)
        recorder.start()
        powered = []

        def power():
            samples = [sample for attempt in read_log(log) for sample in attempt.samples]
            powered[:] = [sample["source"] for sample in samples if sample.get("power_mw")]
            return powered

        if expected is not None:
            wait_until(power)
        else:
            wait_until(lambda: read_log(log))
        recorder.finish()
        return powered[0] if powered else None

    assert [of_the_doctor(), of_a_measurement(), of_a_training()] == [expected] * 3


def test_the_doctor_says_what_is_not_read(tmp_path):
    FakeTree(tmp_path, "Orin Nano")
    install_fake_tegrastats(tmp_path / "usr/bin", follow_curve("Orin Nano"))
    rows = {row.name: row.detail for row in doctor.check_sensors(tmp_path)}
    assert rows["INA3221"] == "not used: tegrastats reads the power"
    assert rows["RAPL"] == "not used: tegrastats and power monitors see the whole board"
    assert rows["power"].startswith("measured by tegrastats: VDD_IN")
    (tmp_path / "usr/bin/tegrastats").unlink()
    rows = {row.name: row.detail for row in doctor.check_sensors(tmp_path)}
    assert rows["tegrastats"].startswith("not used: tegrastats is not on this machine")
    assert rows["INA3221"] == "reads power_mw; power monitor chips"


# -- power for those who measure ----


def test_power_of_a_jetson_without_tegrastats(tmp_path, monkeypatch):
    monkeypatch.setattr("fake_boards.curve_mw", lambda now: 8000.0)
    FakeTree(tmp_path, "Nano")
    with open_power_source(tmp_path) as source:
        assert (source.name, source.method) == ("ina3221", "ina3221: power monitor chips")
        assert source.period_s == 0.5
        reading = source.read()
        assert reading.power_mw["POM_5V_IN"] == source.sample()["POM_5V_IN"] == 8000
        assert reading.energy_mj == {}


def test_power_of_a_jetson_through_tegrastats(tmp_path):
    FakeTree(tmp_path, "Orin Nano")
    install_fake_tegrastats(tmp_path / "usr/bin", follow_curve("Orin Nano"))
    with open_power_source(tmp_path) as source:
        assert source.name == "tegrastats"
        rails = wait_until(source.sample)
    assert rails["VDD_IN"] == pytest.approx(8000, rel=0.21)


def test_counters_are_read_as_counters(tmp_path):
    assert open_power_source(tmp_path) is None
    rapl_tree(tmp_path, {"intel-rapl:0": ("package-0", 900)})
    with open_power_source(tmp_path) as source:
        assert (source.name, source.period_s) == ("rapl", 0.05)
        before = source.read()
        rapl_tree(tmp_path, {"intel-rapl:0": ("package-0", 5900)})
        after = source.read()
    assert after.energy_mj["package-0"] - before.energy_mj["package-0"] == pytest.approx(5)
    assert after.power_mw["package-0"] > 0


def test_the_slowest_sensor_sets_the_period_of_all(tmp_path, monkeypatch):
    """20 periods are the shortest window: of the mean over a second that a GPU's power is, not of the counter."""
    rapl_tree(tmp_path, {"intel-rapl:0": ("package-0", 900)})
    gpu = Gpu(architecture=8, capability=(8, 9), usage_mw=70_000, processes=(os.getpid(), 1))
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(gpu))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("ff.hardware.sources.choose", lambda *_: Choice([Host(), Rapl(tmp_path), Nvml()], []))
    with open_power_source(tmp_path) as source:
        assert source.name == "rapl+nvml"
        assert source.period_s == 1.0
        reading = source.read()
    assert reading.power_mw["gpu0"] == 70_000
    assert set(reading.energy_mj) == {"package-0"}
    (other,) = reading.shared
    assert other.startswith("process 1 ")


def test_a_measurement_names_the_jobs_beside_it(tmp_path):
    rapl_tree(tmp_path, {"intel-rapl:0": ("package-0", 900)})
    with open_power_source(tmp_path) as source:
        assert source.read().shared is None
        presence = Presence(tmp_path)
        presence.enter(Job("another", 1))
        presence_of_its_own = Presence(tmp_path)
        presence_of_its_own.enter(Job("own", os.getpid()))
        wait_until(lambda: source.read().shared == ["another"])
        presence.leave()
        wait_until(lambda: source.read().shared == [])
        presence_of_its_own.leave()


def test_tegrastats_ends_with_close(tmp_path):
    tell = f"say('RAM 1/2MB')\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
    install_fake_tegrastats(tmp_path / "usr/bin", tell + follow_curve("Nano"))
    source = Tegrastats(20, tmp_path)
    source.open()
    readings = wait_until(source.sample)
    assert readings[0]["ram_used_mb"] == 1
    assert readings[0]["raw"] == "RAM 1/2MB"
    pid = int(wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    source.close()
    source.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(OSError, match="not running"):
        source.sample()


def test_the_curve_is_what_it_says():
    assert curve_mw(0.0) == pytest.approx(6400)
    assert curve_mw(0.4) == pytest.approx(9600)
