"""The tables of a capture that CUPTI's records become; they are declared in `profiler.schema`."""

from gputap.profiler.schema import CUDA_API, DEVICE, DeviceFlag, DeviceKind

__all__ = ["CUDA_API", "DEVICE", "DeviceFlag", "DeviceKind"]
