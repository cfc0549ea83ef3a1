"""NVML: NVIDIA's management library, for discrete GPUs, through nvidia-ml-py.

Three ways to the energy of a GPU, the first that it has is used (NVML API reference, "Device Queries" and "Field
Value Enums"):

    counter         nvmlDeviceGetTotalEnergyConsumption, Volta and newer: mJ since the driver was loaded, exact over a
                    window however seldom it is read
    instantaneous   the field NVML_FI_DEV_POWER_INSTANT of newer drivers
    usage           nvmlDeviceGetPowerUsage: instantaneous on GA100 and before Ampere, but a mean over the last second
                    on Ampere except GA100 and on all that is newer
"""

import os
import time
from contextlib import suppress
from typing import Any, NamedTuple

from ff.hardware import SensorMissing

COUNTER = "total-energy counter"
INSTANTANEOUS = "instantaneous power"
AVERAGED = "power averaged over 1 s"
USAGE = "power usage"

_PERIOD_S = 0.1  # the driver renews power and counter every 20 to 100 ms, depending on the GPU
_AVERAGED_S = 1.0
_GA100 = (8, 0)  # the compute capability that tells it from the other Amperes (CUDA C++ programming guide)
# nvmlFieldValue_t: which member of the union holds the value, by NVML_VALUE_TYPE_*.
_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")


class _Gpu(NamedTuple):
    """A GPU that is read: how (None: it says nothing of power), and its counter at open() where it has one."""

    number: int
    handle: Any
    method: str | None
    start_mj: int | None = None


class Nvml:
    """The GPUs this process may use, one reading each per call; rails are gpu0, gpu1 as nvidia-smi counts.

    Only GPUs that CUDA_VISIBLE_DEVICES names are read, so that a job on a shared server logs its own. `method` says
    how their energy is read, `period_s` how often the slowest of them has something new; both hold once it is open.
    """

    name = "nvml"
    fd = None

    def __init__(self):
        self._nvml: Any = None
        self._gpus: list[_Gpu] = []
        self.period_s = _PERIOD_S
        self.method: str | None = None

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
        if not chosen:
            self.close()
            raise SensorMissing("CUDA_VISIBLE_DEVICES names no NVIDIA GPU" if uuids else "there is no NVIDIA GPU")
        self._gpus = [self._gpu(index, handles[index]) for index in chosen]
        methods = dict.fromkeys(gpu.method for gpu in self._gpus if gpu.method is not None)
        self.method = ", ".join(methods) or None
        self.period_s = max((_AVERAGED_S if method == AVERAGED else _PERIOD_S for method in methods), default=_PERIOD_S)

    def _gpu(self, index: int, handle: Any) -> _Gpu:
        energy = self._ask("nvmlDeviceGetTotalEnergyConsumption", handle)
        if energy is not None:
            return _Gpu(index, handle, COUNTER, energy)
        if self._instantaneous(handle) is not None:
            return _Gpu(index, handle, INSTANTANEOUS)
        if self._ask("nvmlDeviceGetPowerUsage", handle) is None:
            return _Gpu(index, handle, None)
        return _Gpu(index, handle, AVERAGED if self._averages(handle) else USAGE)

    def _averages(self, handle: Any) -> bool:
        """Whether nvmlDeviceGetPowerUsage is a mean over a second; assumed of a GPU that does not say what it is."""
        architecture = self._ask("nvmlDeviceGetArchitecture", handle)
        ampere = getattr(self._nvml, "NVML_DEVICE_ARCH_AMPERE", 7)
        if architecture is None or architecture > ampere:  # what NVML does not know is above all that it does
            return True
        return architecture == ampere and self._ask("nvmlDeviceGetCudaComputeCapability", handle) != _GA100

    def _instantaneous(self, handle: Any) -> float | None:
        """The field NVML_FI_DEV_POWER_INSTANT in mW; None where the driver or the GPU does not have it."""
        field = getattr(self._nvml, "NVML_FI_DEV_POWER_INSTANT", None)
        values = self._ask("nvmlDeviceGetFieldValues", handle, [field]) if field is not None else None
        if not values or values[0].nvmlReturn != self._nvml.NVML_SUCCESS:
            return None
        return getattr(values[0].value, _MEMBERS[values[0].valueType])

    def sample(self) -> list[dict]:
        """One reading per GPU. Raises OSError when none answers any more."""
        readings = []
        for gpu in self._gpus:
            now, unix = time.monotonic(), time.time()
            reading = self._power(gpu) | self._state(gpu)
            if reading:
                readings.append({"monotonic_s": now, "unix_s": unix, "gpu": gpu.number, **reading})
        if not readings:
            raise OSError("no GPU answers through NVML")
        return readings

    def _power(self, gpu: _Gpu) -> dict:
        """Power and, where there is a counter, energy since open()."""
        reading: dict = {}
        energy = self._ask("nvmlDeviceGetTotalEnergyConsumption", gpu.handle) if gpu.start_mj is not None else None
        if energy is not None:
            reading["energy_mj"] = {f"gpu{gpu.number}": energy - gpu.start_mj}
        power = self._instantaneous(gpu.handle)
        if power is None:
            power = self._ask("nvmlDeviceGetPowerUsage", gpu.handle)
        if power is not None:
            reading["power_mw"] = {f"gpu{gpu.number}": power}
        return reading

    def _state(self, gpu: _Gpu) -> dict:
        """Load, clock, memory, temperature, and the ids of the processes that compute on it."""
        reading: dict = {}
        load = self._ask("nvmlDeviceGetUtilizationRates", gpu.handle)
        if load is not None:
            reading["gpu_percent"] = load.gpu
        clock = self._ask("nvmlDeviceGetClockInfo", gpu.handle, self._nvml.NVML_CLOCK_SM)
        if clock is not None:
            reading["gpu_freq_mhz"] = [clock]
        memory = self._ask("nvmlDeviceGetMemoryInfo", gpu.handle)
        if memory is not None:
            reading["gpu_memory_used_mb"] = round(memory.used / 2**20, 1)
        celsius = self._ask("nvmlDeviceGetTemperature", gpu.handle, self._nvml.NVML_TEMPERATURE_GPU)
        if celsius is not None:
            reading["temperature_c"] = {f"gpu{gpu.number}": celsius}
        processes = self._ask("nvmlDeviceGetComputeRunningProcesses", gpu.handle)
        if processes is not None:
            reading["gpu_processes"] = [process.pid for process in processes]
        return reading

    def _ask(self, function: str, *arguments):
        """The answer of an NVML function; None where this GPU, driver or version of nvidia-ml-py does not have it."""
        try:
            return getattr(self._nvml, function)(*arguments)
        except (self._nvml.NVMLError, AttributeError):
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
