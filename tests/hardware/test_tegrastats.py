import json
import random
import re

import pytest
from fake_boards import SAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st

from ff.hardware.tegrastats import parse_line

KEYS = {
    "timestamp", "ram_used_mb", "ram_total_mb", "swap_used_mb", "cpu_percent", "cpu_freq_mhz", "gpu_percent",
    "gpu_freq_mhz", "emc_percent", "emc_freq_mhz", "temperature_c", "power_mw", "engines",
}  # fmt: skip

LINES = [line.strip() for line in SAMPLES.read_text().splitlines() if line and not line.startswith("#")]


def reading(timestamp, ram, swap, loads, clocks, gpu, emc, temperature, power, engines):
    return {
        "timestamp": timestamp, "ram_used_mb": ram[0], "ram_total_mb": ram[1], "swap_used_mb": swap,
        "cpu_percent": loads, "cpu_freq_mhz": clocks, "gpu_percent": gpu[0], "gpu_freq_mhz": gpu[1],
        "emc_percent": emc[0], "emc_freq_mhz": emc[1], "temperature_c": temperature, "power_mw": power,
        "engines": engines,
    }  # fmt: skip


OFF = None
MTS = {"MTS fg": 0, "MTS bg": 0}
EXPECTED = [
    reading(  # Nano
        None, (613, 3964), 0, [2, 1, 0, 0], [102] * 4, (0, None), (0, None),
        {"PLL": 39, "CPU": 40.5, "PMIC": 100, "GPU": 41, "AO": 46, "thermal": 41},
        {"POM_5V_IN": 900, "POM_5V_GPU": 0, "POM_5V_CPU": 123}, {},
    ),
    reading(  # TX2
        None, (1345, 7829), 0, [2, OFF, OFF, OFF, OFF, OFF], [345, OFF, OFF, OFF, OFF, OFF], (0, [114]), (13, 40),
        {"BCPU": 35, "MCPU": 35, "GPU": 41, "PLL": 35, "AO": 35.5, "Tboard": 35, "Tdiode": 36, "PMIC": 100,
         "thermal": 35.5},
        {"VDD_IN": 2003, "VDD_CPU": 320, "VDD_GPU": 400, "VDD_SOC": 400, "VDD_WIFI": 0, "VDD_DDR": 240},
        {"APE": 150},
    ),
    reading(  # Xavier NX
        None, (4412, 7772), 139, [9, 6, 6, 5, 4, 8], [1190] * 5 + [1267], (62, [306]), (10, 1600),
        {"AO": 41.5, "GPU": 43, "PMIC": 100, "AUX": 41.5, "CPU": 43.5, "thermal": 42.55},
        {"VDD_IN": 4067, "VDD_CPU_GPU_CV": 738, "VDD_SOC": 1353}, {"APE": 150, **MTS},
    ),
    reading(  # AGX Xavier
        None, (721, 31927), 0, [2, 0, 0, 0] + [OFF] * 4, [1190] * 4 + [OFF] * 4, (0, [318]), (0, 665),
        {"AO": 37.5, "GPU": 37.5, "Tdiode": 40, "PMIC": 100, "AUX": 36, "CPU": 37.5, "thermal": 36.9, "Tboard": 37},
        {"GPU": 0, "CPU": 311, "SOC": 932, "CV": 0, "VDDRQ": 621, "SYS5V": 1482}, {"APE": 150, **MTS},
    ),
    reading(  # Orin Nano, JetPack 5
        "01-24-2024 09:17:09", (3503, 7337), 430, [11, 13, 9, 18, OFF, OFF], [729] * 4 + [OFF] * 2, (0, [305]),
        (0, 2133),
        {"CV0": 42.718, "CPU": 44.093, "SOC2": 42.625, "SOC0": 43.281, "CV1": 42.25, "GPU": 41.343, "tj": 46.968,
         "SOC1": 46.968, "CV2": 42.875},
        {"VDD_IN": 4915, "VDD_CPU_GPU_CV": 449, "VDD_SOC": 1431}, {"GR3D2_FREQ": 0, "VIC_FREQ": 115, "APE": 174},
    ),
    reading(  # Orin Nano, JetPack 6
        "11-15-2024 08:38:09", (6185, 7620), 851, [15, 11, 14, 13, 11, 8], [729] * 6, (63, [621]), (43, 2133),
        {"cpu": 53.968, "soc2": 52.437, "soc0": 50.75, "gpu": 53.343, "tj": 53.968, "soc1": 51.656},
        {"VDD_IN": 12479, "VDD_CPU_GPU_CV": 4667, "VDD_SOC": 2817},
        {"NVDEC": OFF, "NVJPG": OFF, "NVJPG1": OFF, "VIC": OFF, "OFA": OFF, "APE": 200},
    ),
    reading(  # AGX Orin, JetPack 5: four absent sensors, two channels named NC
        "04-24-2023 00:01:24", (1282, 62795), 0, [0] * 12, [729] * 12, (0, [0]), (0, 2133),
        {"CPU": 42.593, "Tboard": 32, "SOC2": 39.343, "Tdiode": 33.25, "SOC0": 39.375, "tj": 42.593, "SOC1": 40.468},
        {"VDD_GPU_SOC": 2399, "VDD_CPU_CV": 400, "VIN_SYS_5V0": 4032, "NC": 0, "VDDQ_VDD2_1V8AO": 301, "NC_2": 0},
        {"GR3D2_FREQ": 0, "VIC_FREQ": 729, "APE": 174},
    ),
    reading(  # Orin Nano, JetPack 7
        "09-04-2026 19:40:48", (1802, 7486), None, [8, 2, 20, 1, 0, 0], [729] * 6, (2, [305]), (4, 665),
        {"cpu": 47.468, "soc2": 46.656, "soc0": 45.906, "gpu": 47.718, "tj": 47.718, "soc1": 47},
        {"VDD_IN": 3703, "VDD_CPU_GPU_CV": 602, "VDD_SOC": 1127},
        {"NVDEC0": OFF, "NVJPG0": OFF, "NVJPG1": OFF, "VIC": OFF, "OFA": OFF, "APE": 200},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("line", "expected"), list(zip(LINES, EXPECTED, strict=True)))
def test_every_field_of_every_sample(line, expected):
    assert parse_line(line) == expected


@pytest.mark.parametrize("line", LINES)
def test_every_word_of_every_sample_is_accounted_for(line):
    parsed = parse_line(line)
    known = {*parsed["power_mw"], *parsed["engines"], *parsed["temperature_c"]}
    known |= {"RAM", "SWAP", "lfb", "cached", "CPU", "EMC_FREQ", "GR3D_FREQ", "MTS", "fg", "bg", "off"}
    absent = set(re.findall(r"(\w+)@-256C", line))
    names = set(re.findall(r"(?<![\w.%@/])[A-Za-z]\w*", line))
    assert names - known - absent == set()
    assert len(parsed["cpu_percent"]) == line.split("CPU [")[1].split("]")[0].count(",") + 1


OTHER = {
    "TX1, L4T 28": (
        "RAM 3468/3983MB (lfb 48x4MB) SWAP 873/8192MB (cached 295MB) cpu [17%,13%,29%,off]@408 EMC 1%@408 APE 25 "
        "GR3D 3%@76",
        {"cpu_percent": [17, 13, 29, None], "cpu_freq_mhz": [408, 408, 408, None], "gpu_percent": 3,
         "gpu_freq_mhz": [76], "emc_percent": 1, "emc_freq_mhz": 408, "engines": {"APE": 25}, "power_mw": {}},
    ),
    "TX1 with IRAM": (
        "RAM 1179/3983MB (lfb 120x4MB) IRAM 0/252kB(lfb 252kB) CPU [1%@102,4%@102,0%@102,0%@102] EMC_FREQ 7%@408 "
        "GR3D_FREQ 0%@76 APE 25 AO@42.5C CPU@37.5C Tdiode@42.75C VDD_IN 2532/2698 VDD_CPU 76/178 VDD_GPU 19/19",
        {"ram_used_mb": 1179, "swap_used_mb": None, "power_mw": {"VDD_IN": 2532, "VDD_CPU": 76, "VDD_GPU": 19},
         "temperature_c": {"AO": 42.5, "CPU": 37.5, "Tdiode": 42.75}, "engines": {"APE": 25}},
    ),
    "K1 in the system log": (
        "E/TegraStats( 3627): RAM 250/490MB (lfb 17x1MB) Carveout 12/12MB (lfb 0kB) GART 28/32MB (lfb 4MB) IRAM "
        "36/256kB (lfb 128kb) | DFS(%@MHz): cpu [61%,45%]@835 avp 17%@100 vde 34%@216 emc 25%@333",
        {"ram_total_mb": 490, "cpu_percent": [61, 45], "emc_percent": 25, "engines": {"avp": 17, "vde": 34},
         "power_mw": {}, "gpu_percent": None},
    ),
    "TX2 with video engines in between": (
        "RAM 4722/7844MB (lfb 1x512kB) CPU [12%@2035,34%@2034] SWAP 149/1024MB (cached 7MB) EMC_FREQ 2%@1866 "
        "GR3D_FREQ 59%@1300 APE 150 MTS fg 3% bg 9% BCPU@-45C GPU@-51C VDD_IN 14025/14416 VDD_WIFI 19/19 NVENC 716 "
        "NVDEC1 off VDD_DDR 2702/2702",
        {"swap_used_mb": 149, "temperature_c": {"BCPU": -45, "GPU": -51}, "gpu_percent": 59,
         "engines": {"APE": 150, "MTS fg": 3, "MTS bg": 9, "NVENC": 716, "NVDEC1": None},
         "power_mw": {"VDD_IN": 14025, "VDD_WIFI": 19, "VDD_DDR": 2702}},
    ),
    "TX2, L4T 32": (
        "RAM 1436/7852MB (lfb 1403x4MB) SWAP 0/3926MB (cached 0MB) CPU [11%@345,off,off,5%@345] EMC_FREQ 4%@665 "
        "GR3D_FREQ 0%@216 APE 150 PLL@38.5C thermal@37.5C VDD_SYS_GPU 152/153 VDD_SYS_SOC 456/453 "
        "VDD_4V0_WIFI 0/12 VDD_IN 2057/2396 VDD_SYS_CPU 152/438 VDD_SYS_DDR 443/477",
        {"power_mw": {"VDD_SYS_GPU": 152, "VDD_SYS_SOC": 456, "VDD_4V0_WIFI": 0, "VDD_IN": 2057, "VDD_SYS_CPU": 152,
                      "VDD_SYS_DDR": 443}},
    ),
    "Xavier NX with every engine off": (
        "RAM 3347/7467MB (lfb 896x4MB) CPU [21%@1190,19%@1190] EMC_FREQ 13%@2133 GR3D_FREQ 61% APE 150 "
        "MTS fg 0% bgnd 0% NVDLA0 OFF PVA0 OFF VIC 0%@115 MSENC OFF NVJPG OFF CV0@-256C PMIC@50.0C "
        "VDD_IN 5336/4970",
        {"gpu_percent": 61, "gpu_freq_mhz": None, "temperature_c": {"PMIC": 50.0},
         "engines": {"APE": 150, "MTS fg": 0, "MTS bgnd": 0, "NVDLA0": None, "PVA0": None, "VIC": 0, "MSENC": None,
                     "NVJPG": None}},
    ),
    "AGX Orin with an accelerator at work": (
        "11-21-2025 08:49:48 RAM 13983/62780MB (lfb 424x4MB) CPU [90%@2201,100%@2201] EMC_FREQ 1%@2133 "
        "GR3D_FREQ 14%@[407,407] VIC_FREQ 115 NVDLA0_FREQ @1600 APE 174 tj@77.281C VDD_GPU_SOC 3150mW/2971mW "
        "VIN_SYS_5V0 4968mW/5048mW",
        {"gpu_percent": 14, "gpu_freq_mhz": [407, 407], "cpu_percent": [90, 100],
         "engines": {"VIC_FREQ": 115, "NVDLA0_FREQ": 1600, "APE": 174},
         "power_mw": {"VDD_GPU_SOC": 3150, "VIN_SYS_5V0": 4968}},
    ),
    "AGX Thor, JetPack 7.0": (
        "05-17-2026 10:00:32 RAM 4208/125773MB (lfb 31x4MB) SWAP 0/2048MB (cached 0MB) CPU [1%@972,0%@972] "
        "EMC_FREQ 0%@665 GR3D_FREQ @[0,0,0] NVENC0_FREQ @0 NVENC1_FREQ @1691 VIC off OFA_FREQ @0 PVA0_FREQ off "
        "APE 300 cpu@34.468C soc012@33.781C VDD_GPU 0mW/0mW VDD_CPU_SOC_MSS 4165mW/4165mW VIN_SYS_5V0 4126mW/4126mW",
        {"gpu_percent": None, "gpu_freq_mhz": [0, 0, 0], "temperature_c": {"cpu": 34.468, "soc012": 33.781},
         "engines": {"NVENC0_FREQ": 0, "NVENC1_FREQ": 1691, "VIC": None, "OFA_FREQ": 0, "PVA0_FREQ": None,
                     "APE": 300},
         "power_mw": {"VDD_GPU": 0, "VDD_CPU_SOC_MSS": 4165, "VIN_SYS_5V0": 4126}},
    ),
    "AGX Thor, JetPack 7.2": (
        "07-02-2026 13:45:44 RAM 36529/125749MB (lfb 12x4MB) SWAP 11/4096MB (cached 9MB) CPU [2%@972,1%@972] "
        "cpu@60.406C/61C gpu@62.906C VDD_GPU 37528mW/37528mW/37528mW VIN 87426mW/43713mW/87426mW",
        {"gpu_percent": None, "gpu_freq_mhz": None, "emc_percent": None, "engines": {},
         "temperature_c": {"cpu": 60.406, "gpu": 62.906}, "power_mw": {"VDD_GPU": 37528, "VIN": 87426}},
    ),
    "Thor with clocks only and one clock for all cores": (
        "08-08-2026 20:58:23 RAM 3429/125749MB (lfb 120x4MB) CPU [0%,5%,off]@2601 EMC_FREQ @4266 "
        "GR3D_FREQ @[300,off,600] VDD_GPU -392mW/-392mW VIN 28906mW/14453mW/28906mW",
        {"cpu_percent": [0, 5, None], "cpu_freq_mhz": [2601, 2601, None], "emc_percent": None, "emc_freq_mhz": 4266,
         "gpu_percent": None, "gpu_freq_mhz": [300, None, 600], "power_mw": {"VDD_GPU": -392, "VIN": 28906}},
    ),
    "blanks everywhere": (
        "  RAM   613/3964MB   (lfb 634x4MB)  CPU  [ 2%@102 , off , 0%@102 ]   GR3D_FREQ   63%@[ 621 , 0 ]   "
        "GPU@41C   VDD_IN   4915 mW / 4915 mW\tVDD_SOC 5.5W\r",
        {"cpu_percent": [2, None, 0], "gpu_percent": 63, "gpu_freq_mhz": [621, 0],
         "power_mw": {"VDD_IN": 4915, "VDD_SOC": 5500}},
    ),
    "rails, temperatures and the GPU's own name": (
        "GPU@41C GPU 250/240 CPU 311/311 CPU@39C CPU [5%@102] GR3D_FREQ 7% ISO-time 2026-01-02T03:04:05.678 RAM 1/2GB",
        {"temperature_c": {"GPU": 41, "CPU": 39}, "power_mw": {"GPU": 250, "CPU": 311}, "cpu_percent": [5],
         "timestamp": "2026-01-02 03:04:05.678", "ram_used_mb": 1024, "ram_total_mb": 2048},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER)
def test_other_boards_and_releases(name):
    line, expected = OTHER[name]
    parsed = parse_line(line)
    assert parsed.keys() == KEYS
    assert {key: parsed[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GR3D_FREQ N/A%@[200,300]", {"gpu_percent": None, "gpu_freq_mhz": None}),
        ("GR3D_FREQ off EMC_FREQ off", {"gpu_percent": None, "emc_percent": None}),
        ("GR3D_FREQ EMC_FREQ 30%", {"gpu_percent": None, "emc_percent": 30}),
        ("GR3D_FREQ 6", {"gpu_percent": None, "gpu_freq_mhz": None, "engines": {}}),
        ("GR3D_FREQ 163%@76", {"gpu_percent": None, "gpu_freq_mhz": [76]}),
        ("EMC_FREQ 3%%@4oops", {"emc_percent": None, "engines": {}}),
        ("CPU [101%@345,x,,5%@102]", {"cpu_percent": [None, None, None, 5]}),
        ("CPU [2%@345,off", {"cpu_percent": None, "cpu_freq_mhz": None}),
        ("VDD_IN 91", {"power_mw": {}, "engines": {}}),
        ("GPU 31", {"power_mw": {}, "engines": {}}),
        ("VDD_IN nanmW/infmW", {"power_mw": {}}),
        ("tj@-256C gpu@41 cpu@x", {"temperature_c": {}}),
        ("RAM 613 SWAP 5/", {"ram_used_mb": None, "swap_used_mb": None, "engines": {}}),
        ("VDD_IN " + "9" * 5000 + "/1", {"power_mw": {}}),
        ("٣%@٤ CPU [٣%@٤]", {"cpu_percent": [None]}),
    ],
)
def test_what_is_absent_or_invalid_is_missing_and_not_zero(line, expected):
    parsed = parse_line(line)
    assert {key: parsed[key] for key in expected} == expected


def check_shape(parsed):
    assert parsed.keys() == KEYS
    json.dumps(parsed, allow_nan=False)
    for key in ("gpu_percent", "emc_percent"):
        assert parsed[key] is None or 0 <= parsed[key] <= 100
    for load in parsed["cpu_percent"] or []:
        assert load is None or 0 <= load <= 100


@given(st.text(max_size=300))
def test_any_text_is_survived(text):
    check_shape(parse_line(text))


@settings(deadline=None)
@given(st.sampled_from(LINES), st.data())
def test_mutated_lines_are_survived(line, data):
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, len(line)))
        end = start + data.draw(st.integers(0, 8))
        line = line[:start] + data.draw(st.text(max_size=5)) + line[end:]
    check_shape(parse_line(line))


@given(st.lists(st.sampled_from(["CPU", "[", "]", "@", "%", "/", "mW", "C", "off", "0", " ", "GR3D_FREQ", "(", ")"])))
def test_any_mixture_of_its_parts_is_survived(parts):
    check_shape(parse_line("".join(parts)))


@pytest.mark.parametrize("line", LINES)
def test_a_line_cut_anywhere_is_survived(line):
    for end in range(len(line)):
        check_shape(parse_line(line[:end]))


@pytest.mark.parametrize("line", LINES)
def test_a_line_cut_between_words_says_nothing_wrong(line):
    whole = parse_line(line)
    for match in re.finditer(" ", line):
        cut = parse_line(line[: match.start()])
        for key, value in cut.items():
            if isinstance(value, dict):
                assert value.items() <= whole[key].items()
            else:
                assert value in (None, whole[key])


def test_the_order_of_fields_does_not_matter():
    words = ["RAM 613/3964MB", "CPU [2%@102,off]", "GR3D_FREQ 62%@306", "APE 150", "MTS fg 0% bg 0%", "GPU@43C",
             "VDD_IN 4067/4067", "GPU 1/1", "EMC_FREQ 10%@1600", "SWAP 139/3886MB (cached 2MB)"]  # fmt: skip
    whole = parse_line(" ".join(words))
    for seed in range(20):
        random.Random(seed).shuffle(words)
        assert parse_line(" ".join(words)) == whole
