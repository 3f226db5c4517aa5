import torch

from emseg.inference.device import autocast, has_fast_bfloat16


def test_precision_decides_the_type_of_a_product():
    cpu = torch.device("cpu")
    a = torch.ones(4, 4)
    expected = {
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "auto": torch.bfloat16 if has_fast_bfloat16(cpu) else torch.float32,
    }
    for precision, dtype in expected.items():
        with autocast(cpu, precision):
            assert (a @ a).dtype == dtype
