"""gputap taps a running PyTorch process by PID and says what holds it back."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
