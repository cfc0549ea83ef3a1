import json

from ff.hardware.machine import describe


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())


JETSON = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "var/lib/dpkg/status": (
        "Package: nvidia-jetpack-dev\nStatus: install ok installed\nVersion: 9.9\n\n"
        "Package: nvidia-jetpack\nStatus: install ok installed\nPriority: standard\nVersion: 6.2+b77\n\n"
    ),
    "var/lib/nvpmodel/status": "pmode:0002\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n",
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    "proc/sys/kernel/osrelease": "5.15.148-tegra\n",
    "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n",
    "proc/meminfo": "MemTotal:        7802604 kB\nSwapTotal:       3901296 kB\n",
    "sys/devices/system/cpu/present": "0-5\n",
    "sys/devices/system/cpu/online": "0-3\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "729600\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "1728000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1728000\n",
    "sys/class/devfreq/17000000.gpu/governor": "nvhost_podgov\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "47468\n",
    "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "-256000\n",
}


def test_a_jetson(tmp_path):
    write(tmp_path, JETSON)
    machine = describe(tmp_path)
    assert machine["model"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert (machine["l4t"], machine["jetpack"]) == ("36.4.3", "6.2")
    assert machine["nvpmodel"] == {"id": 2, "mode": "MAXN_SUPER"}
    assert machine["os"] == "Ubuntu 22.04.5 LTS"
    assert machine["kernel"] == "5.15.148-tegra"
    assert machine["cpu"] == {
        "model": "Cortex-A78AE", "cores": 6, "cores_online": 4, "governor": "schedutil", "current_mhz": [729.6],
        "min_mhz": 1728.0, "max_mhz": 1728.0,
    }  # fmt: skip
    assert machine["gpus"][0]["governor"] == "nvhost_podgov"
    assert machine["gpus"][0]["max_mhz"] == 1020.0
    assert machine["jetson_clocks"] is False
    assert machine["temperature_c"] == {"cpu-thermal": 47.468}
    assert machine["ram_total_mb"] == 7619.7


def test_pinned_clocks_and_an_older_release(tmp_path):
    write(tmp_path, JETSON)
    write(
        tmp_path,
        {
            "sys/class/devfreq/17000000.gpu/min_freq": "1020000000\n",
            "var/lib/dpkg/status": "",
            "etc/nvpmodel.conf": "",
            "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref\n",
        },
    )
    machine = describe(tmp_path)
    assert machine["jetson_clocks"] is True
    assert (machine["l4t"], machine["jetpack"]) == ("32.7.1", "4")
    assert machine["nvpmodel"] == {"id": 2, "mode": None}


def test_a_server_with_a_gpu(tmp_path):
    write(
        tmp_path,
        {
            "sys/class/dmi/id/sys_vendor": "Supermicro\n",
            "sys/class/dmi/id/product_name": "X12\n",
            "proc/cpuinfo": "".join(f"processor : {n}\nmodel name : Intel(R) Xeon(R)\n" for n in range(2)),
            "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue\n",
            "proc/driver/nvidia/gpus/0000:17:00.0/information": "Model: \t\t NVIDIA H100\nIRQ: 5\n",
        },
    )
    machine = describe(tmp_path)
    assert machine["model"] == "Supermicro X12"
    assert machine["cpu"]["model"] == "Intel(R) Xeon(R)"
    assert machine["cpu"]["cores"] == 2
    assert machine["gpus"][0]["name"] == "NVIDIA H100"
    assert machine["driver"] == "550.54.15"
    assert machine["jetson_clocks"] is None


def test_nothing_is_known_and_everything_is_odd(tmp_path):
    empty = describe(tmp_path)
    assert empty["model"] is None
    assert empty["gpus"] == []
    write(tmp_path, dict.fromkeys(JETSON, "\0\ufffd{[ -1 x"))
    json.dumps(describe(tmp_path), allow_nan=False)


def test_this_machine():
    machine = describe()
    json.dumps(machine, allow_nan=False)
    assert machine["kernel"]
    assert machine["cpu"]["cores"] >= 1
    assert "hostname" not in json.dumps(machine)
