import os
import types

import pytest
from fake_boards import BOARDS, FakeTree, curve_mw, follow_curve, install_fake_tegrastats, wait_until

from ff.hardware import SensorMissing
from ff.hardware.host import Host
from ff.hardware.ina3221 import Ina3221
from ff.hardware.rapl import Rapl
from ff.hardware.sources import choose, is_jetson, open_power_source
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

    def denied(zone):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("ff.hardware.rapl._Counter", denied)
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


def test_power_source_of_a_jetson_prefers_its_power_monitors(tmp_path, monkeypatch):
    monkeypatch.setattr("fake_boards.curve_mw", lambda now: 8000.0)
    FakeTree(tmp_path, "Nano")
    with open_power_source(tmp_path) as source:
        assert source.name == "ina3221"
        assert source.period_s > 0
        assert source.sample()["POM_5V_IN"] == 8000


def test_power_source_of_a_jetson_without_power_monitors_is_tegrastats(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3\n")
    install_fake_tegrastats(tmp_path / "usr/bin", follow_curve("Orin Nano"))
    with open_power_source(tmp_path) as source:
        assert source.name == "tegrastats"
        rails = wait_until(source.sample)
    assert rails["VDD_IN"] == pytest.approx(8000, rel=0.21)


def test_power_source_elsewhere(tmp_path):
    assert open_power_source(tmp_path) is None
    rapl_tree(tmp_path, {"intel-rapl:0": ("package-0", 900)})
    with open_power_source(tmp_path) as source:
        assert source.name == "rapl"
        source.sample()
        rapl_tree(tmp_path, {"intel-rapl:0": ("package-0", 5000)})
        assert source.sample()["package-0"] > 0


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
