"""What is read of process, host and devices; NVML by its real library, as far as a machine without a driver allows."""

from types import SimpleNamespace
from typing import Any

import pytest

from pilothouse.producers.surroundings.resources import (
    Devices,
    Process,
    Rates,
    Sampler,
    Sources,
    _Device,
    describe_devices,
    of_all,
    sources_of,
    visible,
)

pynvml = pytest.importorskip("pynvml")


def has_driver() -> bool:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    pynvml.nvmlShutdown()
    return True


def test_process_and_host_are_sampled_with_rates_from_the_second_sample_on() -> None:
    sampler = Sampler(Sources(host=True, devices=False))
    first, second = sampler.read(10.0), sampler.read(12.0)
    assert 0 < first["process_memory_bytes"] <= first["host_memory_total_bytes"]
    assert first["process_threads"] >= 1
    assert 0 <= second["host_cpu_util"] <= 1
    assert not any(name.endswith("_per_s") for name in first)
    assert second["host_net_received_bytes_per_s"] >= 0


def test_a_rank_that_is_not_its_machines_first_tells_of_its_process_alone() -> None:
    sampler = Sampler(sources_of(3, {}))
    assert {name.split("_")[0] for name in sampler.read()} == {"process"}


@pytest.mark.parametrize(
    "local_rank, environ, sources",
    [
        (0, {}, Sources(host=True, devices=True)),
        (1, {}, Sources(host=False, devices=False)),
        (1, {"CUDA_VISIBLE_DEVICES": "0,1"}, Sources(host=False, devices=False)),
        (1, {"CUDA_VISIBLE_DEVICES": "3"}, Sources(host=False, devices=True)),
        (1, {"CUDA_VISIBLE_DEVICES": ""}, Sources(host=False, devices=False)),
    ],
)
def test_every_device_is_told_of_by_one_rank(local_rank: int, environ: dict[str, str], sources: Sources) -> None:
    assert sources_of(local_rank, environ) == sources


def test_a_rate_is_change_by_time_and_a_counter_that_fell_has_none() -> None:
    rates = Rates()
    assert rates.of({"read": 100.0}, 1.0) == {}
    assert rates.of({"read": 300.0}, 5.0) == {"read_per_s": 50.0}
    assert rates.of({"read": 10.0}, 6.0) == {}
    assert rates.of({"read": 20.0}, 6.0) == {}


def test_a_counter_that_a_container_hides_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Process, "_storage", lambda _self: 1 / 0)
    assert Process().read(1.0)["process_memory_bytes"] > 0


@pytest.mark.skipif(has_driver(), reason="the library's error path: there is a driver here")
def test_without_a_driver_nvml_says_so_and_the_sampler_goes_without() -> None:
    with pytest.raises(pynvml.NVMLError):
        Devices({})
    sampler = Sampler(Sources(host=False, devices=True), {})
    assert "gpu_util" not in sampler.read()
    sampler.close()
    assert describe_devices({}) == {}


@pytest.mark.skipif(not has_driver(), reason="needs an NVIDIA driver: run it on a machine with a GPU")
def test_devices_are_read_by_nvml() -> None:
    devices = Devices({})
    told = devices.read(1.0)
    assert 0 <= told["gpu_util"] <= 1
    assert 0 < told["gpu_memory_bytes"] <= told["gpu_memory_total_bytes"]
    assert told["gpu_power_w"] > 0
    assert devices.read(2.0)["energy_kwh"] >= 0
    assert devices.described()["models"]
    devices.close()


UUIDS = ["GPU-aaaa-1", "GPU-aabb-2", "GPU-cccc-3"]


@pytest.mark.parametrize(
    "told, devices",
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        ("GPU-aabb, 0", [1, 0]),
        ("1,7,0", [1]),
        ("-1", []),
        ("0,0", [0]),
        ("MIG-x", []),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(told: str | None, devices: list[int]) -> None:
    assert visible(told, UUIDS) == devices


def test_the_devices_of_a_machine_are_told_together_and_each() -> None:
    told = of_all({0: {"gpu_util": 0.5, "gpu_power_w": 300.0, "gpu_temperature_c": 60.0}, 3: {"gpu_util": 1.0}})
    assert told == {
        "gpu_count": 2.0,
        "gpu_util": 0.75,
        "gpu_util/0": 0.5,
        "gpu_util/3": 1.0,
        "gpu_power_w": 300.0,
        "gpu_power_w/0": 300.0,
        "gpu_temperature_c": 60.0,
        "gpu_temperature_c/0": 60.0,
    }
    assert "gpu_util/0" not in of_all({0: {"gpu_util": 0.5}})
    assert of_all({}) == {}


class Driver:
    """A driver as NVML's library shows one, for what no machine of ours has: the real module's errors and constants."""

    NVMLError = pynvml.NVMLError
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU

    def __init__(self, *lacks: str) -> None:
        self._lacks = lacks
        self.millijoules = 7_200_000_000

    def _ask(self, name: str, answer: Any) -> Any:
        if name in self._lacks:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return answer

    def nvmlDeviceGetUtilizationRates(self, _device: object) -> Any:  # noqa: N802  # the library's names
        return self._ask("utilisation", SimpleNamespace(gpu=80, memory=40))

    def nvmlDeviceGetMemoryInfo(self, _device: object) -> Any:  # noqa: N802
        return SimpleNamespace(used=10, total=80)

    def nvmlDeviceGetPowerUsage(self, _device: object) -> Any:  # noqa: N802
        return 360_000

    def nvmlDeviceGetTemperature(self, _device: object, sensor: int) -> Any:  # noqa: N802
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return 65

    def nvmlDeviceGetTotalEnergyConsumption(self, _device: object) -> Any:  # noqa: N802
        return self._ask("energy", self.millijoules)


def test_a_device_that_does_not_tell_one_thing_tells_the_others() -> None:
    told = _Device(Driver("utilisation"), handle=None).read(1.0)
    assert told == {"gpu_memory_bytes": 10.0, "gpu_memory_total_bytes": 80.0, "gpu_power_w": 360.0,
                    "gpu_temperature_c": 65.0, "energy_kwh": 0.0}  # fmt: skip


def test_energy_counts_from_the_first_sample_by_the_devices_counter() -> None:
    driver = Driver()
    device = _Device(driver, handle=None)
    assert device.read(1.0)["energy_kwh"] == 0.0
    driver.millijoules += 3_600_000_000
    assert device.read(2.0)["energy_kwh"] == pytest.approx(1.0)


def test_energy_is_power_over_time_where_there_is_no_counter() -> None:
    device = _Device(Driver("energy"), handle=None)
    device.read(0.0)
    device.read(5_000.0)
    assert device.read(10_000.0)["energy_kwh"] == pytest.approx(1.0)


def test_every_called_function_is_one_of_the_real_library() -> None:
    called = [name for name in vars(Driver) if name.startswith("nvml")]
    called += ["nvmlInit", "nvmlShutdown", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID"]
    called += ["nvmlDeviceGetName", "nvmlSystemGetDriverVersion"]
    assert all(callable(getattr(pynvml, name)) for name in called)
