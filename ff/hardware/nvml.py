"""NVML: NVIDIA's management library, for discrete GPUs, through nvidia-ml-py."""

import os
import time
from contextlib import suppress

from ff.hardware import SensorMissing


class Nvml:
    """The GPUs this process may use, one reading each per call; rails are gpu0, gpu1 as nvidia-smi counts.

    Only GPUs that CUDA_VISIBLE_DEVICES names are read, so that a job on a shared server logs its own.
    """

    name = "nvml"
    fd = None
    period_s = 0.1  # the driver renews power about every 20 to 100 ms, depending on the GPU

    def __init__(self):
        self._nvml = None
        self._gpus: list[tuple[int, object]] = []
        self._start_mj: dict[int, int] = {}

    def open(self) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise SensorMissing("nvidia-ml-py is not installed; install it with: pip install nvidia-ml-py") from error
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise SensorMissing(f"no NVIDIA driver answers: {error}") from error
        self._nvml = pynvml
        try:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
            uuids = [_string(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
        except pynvml.NVMLError as error:
            self.close()
            raise SensorMissing(f"the NVIDIA driver lists no GPU: {error}") from error
        chosen = visible(uuids, os.environ.get("CUDA_VISIBLE_DEVICES"))
        self._gpus = [(index, handles[index]) for index in chosen]
        if not self._gpus:
            self.close()
            raise SensorMissing("CUDA_VISIBLE_DEVICES names no NVIDIA GPU" if uuids else "there is no NVIDIA GPU")
        for index, handle in self._gpus:
            energy = self._ask("nvmlDeviceGetTotalEnergyConsumption", handle)
            if energy is not None:
                self._start_mj[index] = energy

    def sample(self) -> list[dict]:
        """One reading per GPU. Raises OSError when none answers any more."""
        readings = []
        for index, handle in self._gpus:
            now, unix = time.monotonic(), time.time()
            reading: dict = {}
            rail = f"gpu{index}"
            power = self._ask("nvmlDeviceGetPowerUsage", handle)
            if power is not None:
                reading["power_mw"] = {rail: power}
            energy = self._ask("nvmlDeviceGetTotalEnergyConsumption", handle)
            if energy is not None and index in self._start_mj:
                reading["energy_mj"] = {rail: energy - self._start_mj[index]}
            load = self._ask("nvmlDeviceGetUtilizationRates", handle)
            if load is not None:
                reading["gpu_percent"] = load.gpu
            clock = self._ask("nvmlDeviceGetClockInfo", handle, self._nvml.NVML_CLOCK_SM)
            if clock is not None:
                reading["gpu_freq_mhz"] = [clock]
            memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
            if memory is not None:
                reading["gpu_memory_used_mb"] = round(memory.used / 2**20, 1)
            celsius = self._ask("nvmlDeviceGetTemperature", handle, self._nvml.NVML_TEMPERATURE_GPU)
            if celsius is not None:
                reading["temperature_c"] = {rail: celsius}
            if reading:
                readings.append({"monotonic_s": now, "unix_s": unix, "gpu": index, **reading})
        if not readings:
            raise OSError("no GPU answers through NVML")
        return readings

    def _ask(self, function: str, *arguments):
        """The answer of an NVML function, or None where this GPU does not support it."""
        try:
            return getattr(self._nvml, function)(*arguments)
        except self._nvml.NVMLError:
            return None

    def close(self) -> None:
        nvml, self._nvml, self._gpus = self._nvml, None, []
        if nvml is not None:
            with suppress(nvml.NVMLError):
                nvml.nvmlShutdown()


def visible(uuids: list[str], setting: str | None) -> list[int]:
    """Indices of the GPUs that a value of CUDA_VISIBLE_DEVICES names; None stands for all.

    Entries are indices or beginnings of UUIDs; as for CUDA, the first that names nothing ends the list.
    """
    if setting is None:
        return list(range(len(uuids)))
    chosen = []
    for item in (part.strip() for part in setting.split(",")):
        if item.isdecimal() and int(item) < len(uuids):
            chosen.append(int(item))
            continue
        matches = [i for i, uuid in enumerate(uuids) if len(item) > 4 and uuid.startswith(item)]
        if len(matches) != 1:
            break
        chosen.append(matches[0])
    return chosen


def _string(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
