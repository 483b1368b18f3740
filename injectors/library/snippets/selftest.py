"""Known operators in known functions on this thread, so that gputap can check what it reads.

Nothing of the user's is touched: own tensors without random numbers, gradients by
torch.autograd.grad, which adds to nobody's. A backward pass is run only where the process has done
one before: the first one of a process starts threads, and on a GPU machine contexts.
"""

import json
import os
import sys
import threading

TRAINS = False  # gputap knows of an optimizer with state

SCOPE = "gputap.selftest.scope"


def gputap_selftest_inner(torch, module, left):
    with torch.autograd.profiler.record_function(SCOPE):
        return module(left).sum()


def gputap_selftest_outer(torch, module, left):
    return gputap_selftest_inner(torch, module, left)


def module_class(torch):
    class GputapSelftestModule(torch.nn.Module):
        def __init__(self, right):
            super().__init__()
            # not a Parameter: creating one calls hooks that users may have registered
            self.right = right

        def forward(self, left):
            return left.mm(self.right)

    return GputapSelftestModule


def has_autograd_threads():
    try:
        for tid in os.listdir("/proc/self/task"):
            with open("/proc/self/task/%s/comm" % tid) as file:
                if file.read().startswith("pt_autograd"):
                    return True
    except OSError:
        pass
    return False


def backward_is_harmless(torch):
    version = getattr(torch, "version", None)
    if not any(getattr(version, name, None) for name in ("cuda", "hip", "xpu")):
        return True
    return TRAINS or has_autograd_threads()


def user_hooks():
    held = vars(sys.modules["torch.nn.modules.module"])
    if "_has_any_global_hook" in held:
        return bool(held["_has_any_global_hook"]())
    # torch 2.0 has no such function
    names = ["_global_%s_hooks" % n for n in "backward_pre backward forward forward_pre".split()]
    return not all(name in held for name in names) or any(held[name] for name in names)


def run():
    torch = sys.modules.get("torch")
    if torch is None or "torch.nn.modules.module" not in sys.modules:
        return json.dumps({"skipped": "torch is not imported"})
    said = {"tid": threading.get_native_id(), "scope": SCOPE, "skipped": None}
    like = {"dtype": torch.float32, "device": "cpu"}
    with torch.enable_grad():
        left = torch.ones((3, 5), requires_grad=True, **like)
        right = torch.ones((5, 2), requires_grad=True, **like)
        if user_hooks():
            said["module"] = 0
            module = lambda x: x.mm(right)  # noqa: E731
        else:
            module = module_class(torch)(right)
            said["module"] = id(module)
        total = gputap_selftest_outer(torch, module, left)
        said["backward"] = backward_is_harmless(torch)
        if said["backward"]:
            torch.autograd.grad(total, [left, right])
    return json.dumps(said)


try:
    result = run()
except Exception as error:
    result = json.dumps({"skipped": "%s: %s" % (type(error).__name__, str(error)[:200])})
