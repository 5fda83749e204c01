"""Wrote block.pt beside it: two convolutions, as Python hands them to examples/torchscript.rs.

    python examples/torchscript/block.py        (needs torch)
"""

from pathlib import Path

import torch
from torch import nn

torch.manual_seed(1)
block = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 1))
torch.jit.script(block).save(str(Path(__file__).resolve().parent / "block.pt"))
