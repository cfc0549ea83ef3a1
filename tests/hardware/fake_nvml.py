"""As much of pynvml as is used, with GPUs that are made up."""

import types
from typing import Any, NamedTuple


class Gpu(NamedTuple):
    """A GPU: what it is, and what it answers; None stands for "not supported"."""

    architecture: int | None = 9
    capability: tuple[int, int] | None = (9, 0)
    energy_mj: int | None = None
    instant_mw: int | None = None
    usage_mw: int | None = 70000
    load: int | None = None
    processes: tuple[int, ...] | None = None


class FakeNvml(types.ModuleType):
    """The module; `gpus` may be replaced while it is in use."""

    NVML_SUCCESS, NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 0, 1, 0
    NVML_DEVICE_ARCH_AMPERE, NVML_FI_DEV_POWER_INSTANT, NVML_VALUE_TYPE_UNSIGNED_INT = 7, 186, 1

    class NVMLError(Exception):
        pass

    def __init__(self, *gpus: Gpu):
        super().__init__("pynvml")
        self.gpus = list(gpus)

    def _known(self, value: Any) -> Any:
        if value is None:
            raise self.NVMLError("not supported")
        return value

    def nvmlInit(self):
        pass

    nvmlShutdown = nvmlInit

    def nvmlDeviceGetCount(self):
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetUUID(self, handle):
        return ["GPU-aaaa1111", "GPU-bbbb2222"][handle]

    def nvmlDeviceGetArchitecture(self, handle):
        return self._known(self.gpus[handle].architecture)

    def nvmlDeviceGetCudaComputeCapability(self, handle):
        return self._known(self.gpus[handle].capability)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return self._known(self.gpus[handle].energy_mj)

    def nvmlDeviceGetPowerUsage(self, handle):
        return self._known(self.gpus[handle].usage_mw)

    def nvmlDeviceGetFieldValues(self, handle, fields):
        assert fields == [self.NVML_FI_DEV_POWER_INSTANT]
        # The call succeeds, each field says for itself whether it did.
        power = self.gpus[handle].instant_mw
        value = types.SimpleNamespace(dVal=1e-310, uiVal=power or 0, ullVal=99)
        return [types.SimpleNamespace(nvmlReturn=3 if power is None else 0, valueType=1, value=value)]

    def nvmlDeviceGetUtilizationRates(self, handle):
        return types.SimpleNamespace(gpu=self._known(self.gpus[handle].load))

    def nvmlDeviceGetClockInfo(self, handle, kind):
        return self._known(self.gpus[handle].load) and 1980

    def nvmlDeviceGetMemoryInfo(self, handle):
        return types.SimpleNamespace(used=self._known(self.gpus[handle].load) and 2**30)

    def nvmlDeviceGetTemperature(self, handle, kind):
        return self._known(self.gpus[handle].load) and 33

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [types.SimpleNamespace(pid=pid) for pid in self._known(self.gpus[handle].processes)]
