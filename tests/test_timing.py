"""The measurement protocol on made clocks, devices and sensors of known truth, and on the real thing."""

import threading

import pytest
import torch
from made_devices import Device, EventDevice, Sensor, World
from made_networks import made_prepared, made_run, schema_errors

import ff.timing
from ff.errors import FFError
from ff.files import read_csv, read_json
from ff.phases import PhaseLog, read_phases
from ff.timing import (
    BATCH_SIZES,
    DeployedNetwork,
    PowerMeter,
    Window,
    compare,
    energy_of,
    idle_level,
    in_thread,
    machine_state,
    measure,
    run_agreement,
    run_measurement,
    time_once,
    why_missing,
)

# -- time ----


@pytest.mark.parametrize("kind", [Device, EventDevice])
def test_a_device_that_answers_before_it_is_done_is_timed_to_its_end(kind):
    world = World()
    device = kind(world)
    measured = measure([device], (1, 8, 64), repeats=4, single_samples=10, clock=device.clock)
    assert len(measured.rows["made"]) == 2 * (10 + 4 + 4)
    for row in measured.rows["made"]:
        true = device.true_ms(row["path"], row["batch_size"])
        assert row["latency_ms"] == pytest.approx(true)
        assert row["device_ms"] == (pytest.approx(true) if kind is EventDevice else None)


def test_a_device_that_is_not_waited_for_would_look_too_fast():
    """The test above can fail: without waiting only the launch is seen."""
    world = World()
    device = Device(world)
    device.synchronise = lambda: None
    latency, _ = time_once(device, "deploy", ("deploy", 8, []), world.clock)
    assert latency == pytest.approx(1000 * device.launch_s) and latency < 0.1 * device.true_ms("deploy", 8)


def test_throughput_and_intervals_belong_to_the_batch():
    device = Device(World())
    batches = measure([device], (1, 8), repeats=3, single_samples=5, clock=device.clock).batches["made"]
    assert [(b["path"], b["batch_size"], b["n_repeats"]) for b in batches] == [
        (path, size, n) for path in ("deploy", "end_to_end") for size, n in ((1, 5), (8, 3))
    ]
    for batch in batches:
        true = device.true_ms(batch["path"], batch["batch_size"])
        assert batch["latency_ms"]["median"] == pytest.approx(true)
        assert batch["throughput_per_s"]["median"] == pytest.approx(1000 * batch["batch_size"] / true)
        low, high = batch["throughput_per_s"]["low"], batch["throughput_per_s"]["high"]
        assert low <= batch["throughput_per_s"]["median"] <= high
        assert batch["energy"] is None and batch["peak_memory_mb"] is None


def test_memory_is_reset_before_each_shape_and_small_batches_come_first():
    device = EventDevice(World())
    measured = measure([device], (64, 1, 8), repeats=1, single_samples=1, clock=device.clock)
    assert all(batch["peak_memory_mb"] == 12.5 for batch in measured.batches["made"])
    start = device.log[: 6 * 4]
    assert [entry[0] for entry in start] == ["reset memory", "stage", "run", "wait"] * 6
    assert [entry[2] for entry in start if entry[0] == "run"] == [1, 1, 8, 8, 64, 64]


def test_repeats_answer_different_images_and_devices_the_same():
    seen: dict[str, dict] = {"a": {}, "b": {}}
    world = World()
    devices = [Device(world, "a"), Device(world, "b")]
    for device in devices:
        original = device.stage

        def stage(path, size, generator, device=device, original=original):
            inputs = original(path, size, generator)
            seen[device.name].setdefault((path, size), []).append(tuple(inputs[2]))
            return inputs

        device.stage = stage
    measure(devices, (1, 4), repeats=20, single_samples=30, clock=world.clock)
    for key, drawn in seen["a"].items():
        assert sorted(drawn) == sorted(seen["b"][key])
    assert len(set(seen["a"]["deploy", 4])) == 20 and len(set(seen["a"]["deploy", 1])) > 25


# -- power ----
# ----------


def measure_energy(world: World, device: Device, sensor: Sensor, sizes=(1, 64), phases=None):
    meter = PowerMeter(sensor, world.clock, world.every)
    return measure([device], sizes, 2, 2, clock=world.clock, power=meter, phases=phases, sleep=world.sleep), meter


def test_energy_of_a_sensor_that_updates_every_500_ms():
    world = World()
    device = Device(world, latency_s=lambda path, size: 0.01 + 0.001 * size)
    measured, _ = measure_energy(world, device, Sensor(world, 0.5))
    for batch in measured.batches["made"]:
        if batch["path"] == "end_to_end":
            assert batch["energy"] is None
            continue
        size, used = batch["batch_size"], batch["energy"]
        busy_s = device.latency_s("deploy", size)
        net = 3000 * busy_s / size
        gross = net + 5000 * (busy_s + device.launch_s) / size
        assert used["net_mj_per_sample"] == pytest.approx(net, rel=0.01)
        assert used["gross_mj_per_sample"] == pytest.approx(gross, rel=0.01)
        assert used["idle_mw"] == pytest.approx(5000) and used["rail"] == "VDD_IN"
        # 20 periods of 500 ms are longer than 5 s.
        assert used["window_s"] >= 10 and used["samples"] >= 20
        assert used["inferences"] == pytest.approx(used["window_s"] / (busy_s + device.launch_s) * size, rel=0.01)


def test_a_fast_sensor_still_gets_five_seconds():
    world = World()
    device = Device(world, latency_s=lambda path, size: 0.05)
    measured, _ = measure_energy(world, device, Sensor(world, 0.01), (1,))
    assert measured.batches["made"][0]["energy"]["window_s"] >= 5


def test_net_energy_is_right_while_the_idle_level_drifts():
    """Idle power climbs by 15 mW a second, which is half of the load over the whole measurement."""
    world = World(idle_mw=lambda t: 4000 + 15 * t)
    device = Device(world, latency_s=lambda path, size: 0.02)
    measured, _ = measure_energy(world, device, Sensor(world, 0.5), (1, 2, 8, 16))
    levels = []
    for batch in measured.batches["made"][:4]:
        used = batch["energy"]
        net = 3000 * 0.02 / batch["batch_size"]
        assert used["net_mj_per_sample"] == pytest.approx(net, rel=0.02)
        levels.append(used["idle_mw"])
    assert max(levels) - min(levels) > 300
    # The level before alone would have been wrong by more than 10 % in the last window.
    assert max(levels) - measured.idle_mw["before"] > 0.1 * 3000
    assert measured.idle_mw["after"] > measured.idle_mw["before"]


def test_idle_levels_are_interpolated():
    assert idle_level([(0.0, 100.0), (10.0, 200.0)], 2.5) == 125
    assert idle_level([(0.0, 100.0)], 50.0) == 100
    assert idle_level([], 1.0) is None


def test_a_sensor_that_fails_in_a_window_gives_no_energy_and_not_zero():
    world = World()
    meter = PowerMeter(Sensor(world, 0.5), world.clock, world.every)
    with meter.sampling():
        world.advance(20)
    silent = world.now
    world.advance(20)
    assert energy_of(meter, Window(0.5, silent, 10), []) is not None
    assert energy_of(meter, Window(silent, world.now, 10), []) is None
    # Half a window is not the window either.
    assert energy_of(meter, Window(silent - 10, silent + 10, 10), []) is None


def test_without_an_idle_level_net_energy_is_missing():
    world = World()
    meter = PowerMeter(Sensor(world, 0.5), world.clock, world.every)
    with meter.sampling():
        world.advance(20)
    used = energy_of(meter, Window(2, 18, 100), [None, None])
    assert used["net_mj_per_sample"] is None and used["idle_mw"] is None
    assert used["gross_mj_per_sample"] == pytest.approx(5000 * 16 / 100)


def test_sensors_with_nothing_new_count_with_their_last_reading():
    readings = iter([{"package-0": 100.0}, {"gpu": 50.0}, {}, {"package-0": 200.0}])

    class Source:
        period_s = 0.1

        def sample(self):
            return next(readings)

    meter = PowerMeter(Source(), iter([0.0, 1.0, 2.0]).__next__)
    for _ in range(4):
        meter.take()
    assert meter.times_s == [0.0, 1.0, 2.0] and meter.power_mw == [100.0, 150.0, 250.0]


def test_the_sensor_is_left_alone_while_time_is_measured():
    world = World()
    device, sensor = Device(world), Sensor(world, 0.5)
    during: list[int] = []
    original = device.run

    def run(path, inputs):
        before = sensor.reads
        original(path, inputs)
        during.append((path, sensor.reads - before))

    device.run = run
    measured, _ = measure_energy(world, device, sensor)
    timed = sum(len(rows) for rows in measured.rows.values())
    assert sensor.reads > 40
    # Memory first (4 runs), then an untimed and a timed run each.
    assert all(reads == 0 for _, reads in during[: 4 + 2 * timed])


def test_windows_are_marked_as_phases(tmp_path):
    world = World()
    phases = PhaseLog(tmp_path / "phases.csv")
    measure_energy(world, Device(world), Sensor(world, 0.5), (1, 64), phases)
    names = [phase.name for phase in read_phases(tmp_path / "phases.csv")]
    assert names[:2] == ["idle_before", "measure"] and names[-1] == "idle_after"
    assert sorted(names[2:-1]) == ["energy:made:1", "energy:made:64"]


def test_the_thread_samples_until_the_block_ends():
    count, enough = [], threading.Event()

    def take():
        count.append(1)
        if len(count) == 5:
            enough.set()

    with in_thread(0.001, take):
        assert enough.wait(20)
    assert not any(thread.name == "ff-power" for thread in threading.enumerate())


# -- conditions ----


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def made_jetson(root):
    write(
        root / "etc/nv_tegra_release",
        "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic, EABI: aarch64",
    )
    write(root / "var/lib/nvpmodel/status", "pmode:0002\n")
    write(root / "etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=15W >\n")
    cores = root / "sys/devices/system/cpu"
    write(cores / "present", "0")
    values = {"scaling_governor": "schedutil", "scaling_cur_freq": "1190400", "scaling_min_freq": "729600"}
    for name, text in {**values, "scaling_max_freq": "1510400", "related_cpus": "0"}.items():
        write(cores / "cpu0/cpufreq" / name, text)
    gpu = root / "sys/class/devfreq/17000000.gpu"
    for name, text in {"governor": "nvhost_podgov", "cur_freq": "306000000", "min_freq": "306000000"}.items():
        write(gpu / name, text)
    write(gpu / "max_freq", "624750000")
    write(root / "sys/class/thermal/thermal_zone0/type", "cpu-thermal")
    write(root / "sys/class/thermal/thermal_zone0/temp", "48500")


def test_the_state_of_a_jetson(tmp_path):
    made_jetson(tmp_path)
    state = machine_state(tmp_path)
    assert state["power_mode"] == "15W" and state["jetson_clocks"] is False
    assert state["governor"] == {"cpu": "schedutil", "17000000.gpu": "nvhost_podgov"}
    assert state["clocks_mhz"]["cpu"] == [1190.4] and state["clocks_mhz"]["17000000.gpu"] == 306.0
    assert state["temperature_c"]["cpu-thermal"] == 48.5


def test_what_a_machine_does_not_say_is_left_out(tmp_path):
    state = machine_state(tmp_path)
    assert state["power_mode"] is None and state["jetson_clocks"] is None
    assert state["governor"] == {} and not state["clocks_mhz"].get("cpu")


# -- devices and runs ----


def test_why_a_device_is_missing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert why_missing("cpu") is None
    assert "no CUDA device" in why_missing("cuda")
    assert "no device that torch knows" in why_missing("abacus")
    assert "not supported" in why_missing("meta")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert why_missing("cuda:0") is None and "none with number 4" in why_missing("cuda:4")


def test_both_paths_answer_the_same():
    from made_networks import made_config, made_network

    prepared = made_prepared()
    deployed = DeployedNetwork("cpu", made_network(made_config()), prepared.test, prepared.facts)
    draw = [torch.Generator().manual_seed(3) for _ in range(2)]
    pixels, images = (deployed.stage(path, 16, g) for path, g in zip(("deploy", "end_to_end"), draw, strict=True))
    assert pixels.shape == (16, 784) and images.shape == (16, 1, 28, 28) and images.dtype == torch.uint8
    classes = deployed.run("deploy", pixels)
    assert torch.equal(classes, deployed.run("end_to_end", images))
    deployed.reset_peak_memory()
    peak = deployed.peak_memory_mb()
    assert peak is None or peak > 1


@pytest.fixture
def no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_run_gets_files_for_each_device_there_or_not(tmp_path, no_cuda, monkeypatch):
    monkeypatch.setattr(ff.timing, "_power_source", lambda: (None, "no sensor in this test"))
    prepared = made_prepared()
    _, config = made_run(tmp_path, prepared, seed=5)
    run_measurement(tmp_path, prepared, batch_sizes=(1, 4), repeats=3, single_samples=6)
    cpu, cuda = (read_json(tmp_path / "variance" / f"{name}.json") for name in ("cpu", "cuda"))
    assert schema_errors(cpu, "variance") == schema_errors(cuda, "variance") == []
    rows = read_csv(tmp_path / "variance" / "cpu.csv")
    assert len(rows) == 2 * (6 + 3)
    assert all(float(row["latency_ms"]) > 0 and row["device_ms"] == "" for row in rows)
    assert cpu["device"]["available"] and cpu["device"]["name"] and cpu["seed"] == 5
    assert cpu["run"]["name"] == config.name and cpu["measured_together"] == ["cpu"]
    assert cpu["conditions"]["power"]["reason"] == "no sensor in this test"
    assert not cuda["device"]["available"] and "no CUDA device" in cuda["device"]["reason"]
    assert cuda["batches"] == [] and read_csv(tmp_path / "variance" / "cuda.csv") == []
    names = [phase.name for phase in read_phases(tmp_path / "variance" / "phases.csv")]
    assert names == ["measure"]


def test_a_run_with_a_power_sensor_has_energy_of_both_kinds(tmp_path, no_cuda, monkeypatch):
    class Steady:
        """7 W, always."""

        name, period_s = "steady", 0.2

        def sample(self):
            return {"VDD_IN": 7000.0}

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(ff.timing, "_power_source", lambda: (Steady(), None))
    # Short windows of a slow sensor: a thread that is held up for a moment leaves no gap in its readings.
    for name, value in {"WINDOW_S": 0.4, "SENSOR_PERIODS": 2, "LEAD_IN_S": 0.0, "LEAD_IN_PERIODS": 0}.items():
        monkeypatch.setattr(ff.timing, name, value)
    prepared = made_prepared()
    made_run(tmp_path, prepared)
    run_measurement(tmp_path, prepared, ("cpu",), (1, 4), 2, 2, energy_batch_sizes=(4,))
    document = read_json(tmp_path / "variance" / "cpu.json")
    assert schema_errors(document, "variance") == []
    energies = {(b["path"], b["batch_size"]): b["energy"] for b in document["batches"]}
    used = energies.pop(("deploy", 4))
    assert set(energies.values()) == {None}
    assert used["gross_mj_per_sample"] == pytest.approx(7000 * used["window_s"] / used["inferences"])
    assert used["net_mj_per_sample"] == pytest.approx(0, abs=1e-9)
    power = document["conditions"]["power"]
    assert power["source"] == "steady" and power["idle_before_mw"] == pytest.approx(7000)


def test_measuring_again_replaces_the_phase_marks(tmp_path, no_cuda):
    prepared = made_prepared()
    made_run(tmp_path, prepared)
    for _ in range(2):
        run_measurement(tmp_path, prepared, ("cpu",), (1,), 1, 1, energy_batch_sizes=())
    assert len(read_phases(tmp_path / "variance" / "phases.csv")) == 1


def test_the_protocol_covers_the_batch_sizes_asked_for():
    assert BATCH_SIZES == (1, 2, 8, 16, 32, 64, 128, 256, 512)


# -- agreement ----


def test_agreement_of_known_logits():
    first = torch.tensor([[1.0, 3, 0], [5, 4.5, 0], [0, 0, 2]])
    second = torch.tensor([[1.0, 3, 0], [4.25, 5, 0], [0, 0, 2.5]])
    result = compare(first, second, ("cpu", "cuda"))
    assert result["n"] == 3 and result["same_predictions_share"] == pytest.approx(2 / 3)
    assert result["max_logit_difference"] == pytest.approx(0.75)
    assert result["differing"] == [{"index": 1, "margin_cpu": 0.5, "margin_cuda": 0.75}]
    nothing = compare(first[:0], second[:0], ("cpu", "cuda"))
    assert nothing["same_predictions_share"] is nothing["max_logit_difference"] is None


def test_agreement_of_a_device_with_itself(tmp_path):
    prepared = made_prepared()
    made_run(tmp_path, prepared)
    run_agreement(tmp_path, prepared, ("cpu", "cpu"), batch_size=7)
    document = read_json(tmp_path / "variance" / "agreement.json")
    assert schema_errors(document, "agreement") == []
    assert document["available"] and document["n"] == 60
    assert document["same_predictions_share"] == 1 and document["max_logit_difference"] == 0


def test_agreement_with_one_device_says_what_is_missing(tmp_path, no_cuda):
    prepared = made_prepared()
    made_run(tmp_path, prepared)
    run_agreement(tmp_path, prepared)
    document = read_json(tmp_path / "variance" / "agreement.json")
    assert schema_errors(document, "agreement") == []
    assert not document["available"] and document["reason"].startswith("cuda: no CUDA device")
    assert document["same_predictions_share"] is None and document["n"] is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_gpu_is_measured_and_agrees(tmp_path):
    prepared = made_prepared()
    made_run(tmp_path, prepared)
    run_measurement(tmp_path, prepared, batch_sizes=(1, 32), repeats=5, single_samples=5, energy_batch_sizes=())
    run_agreement(tmp_path, prepared)
    document = read_json(tmp_path / "variance" / "cuda.json")
    assert schema_errors(document, "variance") == []
    for batch in document["batches"]:
        assert 0 < batch["device_ms"]["median"] <= batch["latency_ms"]["median"] and batch["peak_memory_mb"] > 0
    assert read_json(tmp_path / "variance" / "agreement.json")["same_predictions_share"] > 0.99


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"single_samples": 0}, {"batch_sizes": (4, 0)}, {"batch_sizes": ()}])
def test_a_count_below_one_is_refused_in_a_sentence(tmp_path, wrong):
    with pytest.raises(FFError, match="give at least 1"):
        run_measurement(tmp_path, made_prepared(), **wrong)
