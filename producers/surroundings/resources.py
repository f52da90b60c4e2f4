"""How busy the machine is: this process, its host, its NVIDIA devices. For `ResourcesSampled`.

`producers.beside` asks every so many seconds, on its own thread. Process and host are read by psutil, devices by NVML
(the package `nvidia-ml-py`, extra `nvidia`) where there is a driver; what a source cannot tell is left out, nothing
raises. On each machine one rank tells of host and devices (`sources_of`), every rank of its own process.

    gpu_util              share of the time in which a kernel ran (0 to 1), mean over the devices; gpu_util/0 of one
    gpu_memory_util       as gpu_util, for the memory's controller
    gpu_memory_bytes      memory in use, all devices        gpu_memory_total_bytes   what there is
    gpu_power_w           power drawn, all devices          gpu_temperature_c        of the hottest device
    energy_kwh            used by all devices since the run began
    gpu_count             devices that are sampled
    host_cpu_util         0 to 1, mean over the cores       host_memory_bytes        in use
    host_memory_total_bytes
    host_disk_read_bytes_per_s, host_disk_write_bytes_per_s, host_net_received_bytes_per_s, host_net_sent_bytes_per_s
    process_cpu_util      1 is one core                     process_memory_bytes     resident
    process_read_bytes_per_s, process_write_bytes_per_s     on storage              process_threads
"""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

VISIBLE = "CUDA_VISIBLE_DEVICES"
MOST_DEVICES = 64
JOULES_PER_KWH = 3.6e6

Numbers = dict[str, float]


class Source(Protocol):
    """One place to read from."""

    def read(self, seconds: float) -> Numbers:
        """The numbers now; `seconds` is a clock that only grows, for what is a rate."""


class Sources(NamedTuple):
    """What this rank tells of besides its own process."""

    host: bool
    devices: bool


def sources_of(local_rank: int, environ: Mapping[str, str]) -> Sources:
    """One rank of a machine tells of the host and of all devices it may see. A rank that was given exactly one device
    (Slurm's `--gpus-per-task=1`) tells of that one, for nobody else sees it.
    """
    own = environ.get(VISIBLE, "")
    return Sources(host=local_rank == 0, devices=local_rank == 0 or (own.strip() != "" and "," not in own))


class Sampler:
    """All that one rank reads. The first sample has no rates yet."""

    def __init__(self, sources: Sources, environ: Mapping[str, str] | None = None) -> None:
        given = os.environ if environ is None else environ
        self._sources: list[Source] = []
        _begin(self._sources, Process)
        if sources.host:
            _begin(self._sources, Host)
        if sources.devices:
            _begin(self._sources, lambda: Devices(given))

    def read(self, seconds: float | None = None) -> Numbers:
        """The numbers of every source that answers."""
        now = time.monotonic() if seconds is None else seconds
        told: Numbers = {}
        for source in self._sources:
            try:
                told |= source.read(now)
            except Exception:  # noqa: BLE001  # a counter that a container hides must not cost the others
                continue
        return told

    def close(self) -> None:
        """Let go of the drivers."""
        for source in self._sources:
            if isinstance(source, Devices):
                source.close()


def _begin(sources: list[Source], make: Callable[[], Source]) -> None:
    try:
        sources.append(make())
    except Exception:  # noqa: BLE001  # a library or driver that is not there is a source that is not there
        return


class Rates:
    """From counters that only grow to change per second."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, float]] = {}

    def of(self, counters: Mapping[str, float], seconds: float) -> Numbers:
        """The rate of each counter since it was last given; none for the first time, or where it fell."""
        rates: Numbers = {}
        for name, value in counters.items():
            before = self._last.get(name)
            self._last[name] = (seconds, value)
            if before is not None and seconds > before[0] and value >= before[1]:
                rates[f"{name}_per_s"] = (value - before[1]) / (seconds - before[0])
        return rates


class Process:
    """This process alone: the workers of a data loader are others."""

    def __init__(self) -> None:
        import psutil

        self._process = psutil.Process()
        self._process.cpu_percent()  # from here on it counts
        self._rates = Rates()

    def read(self, seconds: float) -> Numbers:
        with self._process.oneshot():
            told = {
                "process_cpu_util": self._process.cpu_percent() / 100,
                "process_memory_bytes": float(self._process.memory_info().rss),
                "process_threads": float(self._process.num_threads()),
            }
        return told | self._rates.of(_present(self._storage), seconds)

    def _storage(self) -> Numbers:
        moved = self._process.io_counters()
        return {"process_read_bytes": moved.read_bytes, "process_write_bytes": moved.write_bytes}


class Host:
    """The machine, or as much of it as a container shows."""

    def __init__(self) -> None:
        import psutil

        self._psutil: Any = psutil
        psutil.cpu_percent()
        self._rates = Rates()

    def read(self, seconds: float) -> Numbers:
        memory = self._psutil.virtual_memory()
        told = {
            "host_cpu_util": self._psutil.cpu_percent() / 100,
            "host_memory_bytes": float(memory.total - memory.available),
            "host_memory_total_bytes": float(memory.total),
        }
        return told | self._rates.of(_present(self._disk) | _present(self._net), seconds)

    def _disk(self) -> Numbers:
        moved = self._psutil.disk_io_counters()
        return {"host_disk_read_bytes": moved.read_bytes, "host_disk_write_bytes": moved.write_bytes}

    def _net(self) -> Numbers:
        moved = self._psutil.net_io_counters()
        return {"host_net_received_bytes": moved.bytes_recv, "host_net_sent_bytes": moved.bytes_sent}


class Devices:
    """NVIDIA's devices by NVML: it needs no CUDA context, and takes no memory of theirs.

    Raises:
        ImportError: nvidia-ml-py is not installed.
        pynvml.NVMLError: there is no driver, or it refuses.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        import pynvml

        self._nvml: Any = pynvml
        pynvml.nvmlInit()
        count = min(pynvml.nvmlDeviceGetCount(), MOST_DEVICES)
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        names = [_text(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
        self._devices = {index: _Device(pynvml, handles[index]) for index in visible(environ.get(VISIBLE), names)}

    def read(self, seconds: float) -> Numbers:
        each = {index: device.read(seconds) for index, device in self._devices.items()}
        return of_all(each)

    def described(self) -> dict[str, Any]:
        """How many there are, of which models, and the driver's version."""
        models = {_text(self._nvml.nvmlDeviceGetName(device.handle)) for device in self._devices.values()}
        driver = _text(self._nvml.nvmlSystemGetDriverVersion())
        return {"count": len(self._devices), "models": sorted(models), "driver": driver} if self._devices else {}

    def close(self) -> None:
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError:
            return


class _Device:
    """One device. MIG instances and older cards do not tell everything."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self.handle = handle
        self._nvml = nvml
        self._energy_at_first: float | None = None
        self._integrated: tuple[float, float, float] | None = None
        """Where the device has no counter: when power was last read, the power, and the joules so far."""

    def read(self, seconds: float) -> Numbers:
        told: Numbers = {}
        for part in (self._utilisation, self._memory, self._power, self._temperature):
            try:
                told |= part()
            except self._nvml.NVMLError:  # not supported here; the others may be
                continue
        return told | {"energy_kwh": self._joules(told.get("gpu_power_w", 0.0), seconds) / JOULES_PER_KWH}

    def _utilisation(self) -> Numbers:
        busy = self._nvml.nvmlDeviceGetUtilizationRates(self.handle)
        return {"gpu_util": busy.gpu / 100, "gpu_memory_util": busy.memory / 100}

    def _memory(self) -> Numbers:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(self.handle)
        return {"gpu_memory_bytes": float(memory.used), "gpu_memory_total_bytes": float(memory.total)}

    def _power(self) -> Numbers:
        return {"gpu_power_w": self._nvml.nvmlDeviceGetPowerUsage(self.handle) / 1_000}

    def _temperature(self) -> Numbers:
        nvml = self._nvml
        return {"gpu_temperature_c": float(nvml.nvmlDeviceGetTemperature(self.handle, nvml.NVML_TEMPERATURE_GPU))}

    def _joules(self, power: float, seconds: float) -> float:
        """Used since the first sample: by the device's counter, or else by its power over time."""
        try:
            energy = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle) / 1_000
        except self._nvml.NVMLError:
            then, before, joules = self._integrated or (seconds, power, 0.0)
            self._integrated = (seconds, power, joules + (seconds - then) * (power + before) / 2)
            return self._integrated[2]
        self._energy_at_first = energy if self._energy_at_first is None else self._energy_at_first
        return float(energy - self._energy_at_first)


def visible(told: str | None, uuids: list[str]) -> list[int]:
    """The devices that CUDA_VISIBLE_DEVICES leaves, by NVML's number: as CUDA reads it, the list ends at what it does
    not know. Unset means all. (CUDA numbers devices as NVML does where CUDA_DEVICE_ORDER is PCI_BUS_ID.)
    """
    if told is None:
        return list(range(len(uuids)))
    chosen: list[int] = []
    for word in (word.strip() for word in told.split(",")):
        number = int(word) if word.isdecimal() else next((i for i, uuid in enumerate(uuids) if _names(word, uuid)), -1)
        if not 0 <= number < len(uuids) or number in chosen:
            break
        chosen.append(number)
    return chosen


def _names(word: str, uuid: str) -> bool:
    """CUDA takes any beginning of a UUID that tells devices apart."""
    return word.startswith("GPU-") and uuid.startswith(word)


def of_all(each: Mapping[int, Numbers]) -> Numbers:
    """The devices of one machine together, and each under its number."""
    if not each:
        return {}
    told = {"gpu_count": float(len(each))}
    for name in dict.fromkeys(name for numbers in each.values() for name in numbers):
        values = {index: numbers[name] for index, numbers in each.items() if name in numbers}
        told[name] = _together(name, list(values.values()))
        if len(each) > 1:
            told |= {f"{name}/{index}": value for index, value in values.items()}
    return told


def _together(name: str, values: list[float]) -> float:
    if name.endswith("_util"):
        return sum(values) / len(values)
    return max(values) if name.endswith("_c") else sum(values)


def describe_devices(environ: Mapping[str, str]) -> dict[str, Any]:
    """The devices as NVML names them; empty where it cannot be asked."""
    try:
        devices = Devices(environ)
    except Exception:  # noqa: BLE001  # no library, no driver, no permission: there is nothing to tell
        return {}
    try:
        return devices.described()
    except devices._nvml.NVMLError:
        return {}
    finally:
        devices.close()


def _present(read: Callable[[], Numbers]) -> Numbers:
    try:
        return read()
    except Exception:  # noqa: BLE001  # permissions, containers, kernels: psutil raises a dozen kinds
        return {}


def _text(name: str | bytes) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name
