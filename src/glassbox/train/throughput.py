"""How fast a device could go: the peak that model FLOP utilisation is stated against."""

import time

import torch

KNOWN_PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
}
"""Dense bf16 FLOP/s from the makers' data sheets, by a word in the device's name."""


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Most FLOP/s of a matrix product: the data sheet's for bf16 on a known GPU, else the best of a few measured ones.

    A measurement takes a fraction of a second. On a CPU it counts processor time over torch's threads, so that other
    programs on the machine do not lower it.
    """
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for word, peak in KNOWN_PEAKS.items():
            if word in name:
                return peak
    return _measured(device, dtype, width=4096 if device.type == "cuda" else 768)


def _measured(device: torch.device, dtype: torch.dtype, width: int, repeats: int = 12) -> float:
    left, right = (torch.ones(width, width, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(repeats):
        start = _seconds(device)
        left @ right
        best = min(best, _seconds(device) - start)
    return 2 * width**3 / best


def _seconds(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time() / torch.get_num_threads()
    torch.cuda.synchronize(device)
    return time.perf_counter()
