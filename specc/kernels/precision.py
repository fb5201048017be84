"""What numbers are rounded to. A file says both on top, and tests in float64 set both."""

import torch

COMPUTE = torch.float32  # activations, weights in use, and what ranks send of them
REDUCE = torch.float32  # loss, norm, sums over ranks
