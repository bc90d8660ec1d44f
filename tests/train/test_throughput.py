"""The peak is a rate a real product can come near, and known devices are read from their name."""

import time

import torch

from glassbox.train.throughput import peak_flops


def test_the_measured_peak_is_of_the_size_of_a_product():
    peak = peak_flops(torch.device("cpu"), torch.float32)
    left, right = torch.randn(512, 512), torch.randn(512, 512)
    start = time.process_time()
    for _ in range(8):
        left @ right
    rate = 8 * 2 * 512**3 / (time.process_time() - start)
    assert rate / 10 < peak < rate * 100


def test_a_known_device_has_its_data_sheets_peak(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    assert peak_flops(torch.device("cuda"), torch.bfloat16) == 989e12
