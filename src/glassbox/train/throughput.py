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

    A measurement takes about a tenth of a second and uses the threads torch is set to.
    """
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for word, peak in KNOWN_PEAKS.items():
            if word in name:
                return peak
    return _measured(device, dtype, width=4096 if device.type == "cuda" else 768)


def _measured(device: torch.device, dtype: torch.dtype, width: int, repeats: int = 8) -> float:
    left, right = (torch.ones(width, width, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        left @ right
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * width**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
