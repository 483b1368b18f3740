"""Trains a small model for argv[1] steps (0: for ever) and prints a digest of the exact losses."""

import hashlib
import sys

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
steps = int(sys.argv[1])
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
x, y = torch.randn(8, 64), torch.randn(8, 8)
digest = hashlib.sha256()
print("ready", flush=True)
step = 0
while not steps or step < steps:
    optimizer.zero_grad()
    loss = ((model(x) - y) ** 2).mean()
    loss.backward()
    optimizer.step()
    if step % 16 == 0:
        digest.update(loss.detach().numpy().tobytes())
    step += 1
print(digest.hexdigest(), flush=True)
