"""What a training uses of its machine: processor, memory, disk, network and GPUs, under the names of MLflow's system metrics."""

import shutil
import subprocess
from contextlib import suppress

_GPU = "index,utilization.gpu,memory.used,memory.total,power.draw"
_MB = 1e6


class Hardware:
    """Looks at the machine and at one process with its children. The first look tells no shares of time, since they need two."""

    def __init__(self, pid: int) -> None:
        import psutil

        self._psutil, self._pid = psutil, pid
        self._smi = shutil.which("nvidia-smi")
        self._network = psutil.net_io_counters()
        psutil.cpu_percent()
        self._cpu: dict[int, float] = {}

    def look(self, seconds: float) -> dict[str, float]:
        """Values by name; `seconds` have passed since the last look."""
        psutil = self._psutil
        memory, disk = psutil.virtual_memory(), psutil.disk_usage("/")
        found = {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/system_memory_usage_megabytes": memory.used / _MB,
            "system/system_memory_usage_percentage": memory.percent,
            "system/disk_usage_percentage": disk.percent,
            "system/disk_available_megabytes": disk.free / _MB,
        }
        network = psutil.net_io_counters()
        if network and self._network:
            found["system/network_receive_megabytes"] = (network.bytes_recv - self._network.bytes_recv) / _MB
            found["system/network_transmit_megabytes"] = (network.bytes_sent - self._network.bytes_sent) / _MB
        return {**found, **self._process(seconds), **self._gpus()}

    def _process(self, seconds: float) -> dict[str, float]:
        """The training itself, with all that it has started; 100 % is one core."""
        psutil, memory, cpu = self._psutil, 0.0, {}
        with suppress(psutil.Error):
            mother = psutil.Process(self._pid)
            for one in [mother, *mother.children(recursive=True)]:
                with suppress(psutil.Error):
                    times = one.cpu_times()
                    cpu[one.pid] = times.user + times.system
                    memory += one.memory_info().rss
        spent = sum(value - self._cpu.get(pid, 0.0) for pid, value in cpu.items())
        share = {"system/process_cpu_percentage": max(spent, 0.0) / seconds * 100} if self._cpu else {}
        self._cpu = cpu
        return {"system/process_memory_megabytes": memory / _MB, **share} if cpu else {}  # nothing of a process that is gone

    def _gpus(self) -> dict[str, float]:
        if self._smi is None:
            return {}
        command = [self._smi, f"--query-gpu={_GPU}", "--format=csv,noheader,nounits"]
        try:
            text = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            return {}
        return gpu_metrics(text)


def gpu_metrics(text: str) -> dict[str, float]:
    """What `nvidia-smi` says, a line for each GPU; a field that it does not know is left out.

    >>> gpu_metrics("0, 12, [N/A], [N/A], 70.5")
    {'system/gpu_0_utilization_percentage': 12.0, 'system/gpu_0_power_usage_watts': 70.5}
    """
    found = dict[str, float]()
    for line in text.strip().splitlines():
        index, *fields = (field.strip() for field in line.split(","))
        if len(fields) != _GPU.count(","):  # a sentence, not a line of values
            continue
        numbers = [_number(field) for field in fields]
        used, total = numbers[1:3]
        values = {
            "utilization_percentage": numbers[0],
            "memory_usage_megabytes": used,
            "memory_usage_percentage": 100 * used / total if used is not None and total else None,
            "power_usage_watts": numbers[3],
        }
        found |= {f"system/gpu_{index}_{name}": value for name, value in values.items() if value is not None}
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
