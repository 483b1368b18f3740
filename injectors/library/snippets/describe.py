"""Who this process is: versions, rank, process groups, threads, loaders, optimizers, settings."""

import gc
import json
import os
import sys
import threading
import time
from itertools import compress

SCAN = True  # look through the collector's objects for loaders and optimizers
DEADLINE_S = 1.0
SLICE = 20000

ENVIRONMENT = (
    "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK TORCHELASTIC_RUN_ID "
    "SLURM_JOB_ID SLURM_PROCID SLURM_NTASKS SLURM_LOCALID SLURM_NNODES SLURM_ARRAY_JOB_ID "
    "OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE OMPI_COMM_WORLD_LOCAL_RANK PMI_RANK PMI_SIZE "
    "JOB_COMPLETION_INDEX OMP_NUM_THREADS MKL_NUM_THREADS CUDA_VISIBLE_DEVICES "
    "CUDA_LAUNCH_BLOCKING CUDA_DEVICE_MAX_CONNECTIONS PYTORCH_CUDA_ALLOC_CONF "
    "PYTORCH_ALLOC_CONF TORCH_LOGS TORCH_NCCL_TRACE_BUFFER_SIZE TORCH_FR_BUFFER_SIZE"
).split()
SECRETS = ("token", "secret", "passw", "credential", "apikey", "api-key", "api_key", "access_key")


def masked(argv):
    out, hide = [], False
    for text in argv[:200]:
        text = str(text)[:1000]
        name, equals, _ = text.partition("=")
        secret = any(word in name.lower() for word in SECRETS)
        if hide and not text.startswith("-"):
            text = "***"
        elif secret and equals:
            text = name + "=***"
        hide = secret and not equals and text.startswith("-")
        out.append(text)
    return out


def rank_of(found):
    env = found["environment"]

    def first(*names):
        for name in names:
            if env.get(name, "").isdigit():
                return int(env[name])
        return None

    return {
        "rank": first("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK"),
        "world_size": first("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"),
        "local_rank": first("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK"),
        "rank_source": "environment",
    }


def distributed(found):
    c10d = sys.modules.get("torch.distributed.distributed_c10d")
    if c10d is None or not c10d.is_initialized():
        return
    found["rank"] = c10d.get_rank()
    found["world_size"] = c10d.get_world_size()
    found["rank_source"] = "torch.distributed"
    found["backend"] = str(c10d.get_backend())
    world = getattr(c10d, "_world", None)
    groups = []
    for group, held in list(getattr(world, "pg_map", {}).items())[:256]:
        ranks = sorted(getattr(world, "pg_group_ranks", {}).get(group, {}))
        groups.append(
            {
                "name": str(getattr(world, "pg_names", {}).get(group, "")),
                "backend": str(held[0]),
                "size": len(ranks),
                "ranks": ranks[:1024],
            }
        )
    found["process_groups"] = groups


def torch_facts(found):
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "__version__"):
        return
    facts = {"version": str(torch.__version__)}
    found["torch"] = facts
    version = getattr(torch, "version", None)
    facts["cuda"] = getattr(version, "cuda", None)
    facts["hip"] = getattr(version, "hip", None)
    facts["cxx11_abi"] = bool(getattr(torch._C, "_GLIBCXX_USE_CXX11_ABI", True))
    facts["num_threads"] = torch.get_num_threads()
    facts["num_interop_threads"] = torch.get_num_interop_threads()
    facts["deterministic"] = bool(torch.are_deterministic_algorithms_enabled())
    backends = sys.modules.get("torch.backends.cudnn")
    facts["cudnn_benchmark"] = bool(getattr(backends, "benchmark", False))
    facts["compiled"] = "torch._dynamo.eval_frame" in sys.modules
    cuda = sys.modules.get("torch.cuda")
    # is_available() may start the driver; only what is running already is looked at
    running = bool(cuda is not None and cuda.is_initialized())
    facts["cuda_initialized"] = running
    if running:
        facts["device"] = cuda.current_device()
        facts["device_name"] = str(cuda.get_device_name(facts["device"]))


def interpreter_facts(found):
    found["python"] = ".".join(str(n) for n in sys.version_info[:3])
    found["implementation"] = sys.implementation.name
    found["pid"] = os.getpid()
    found["argv"] = masked(getattr(sys, "orig_argv", None) or getattr(sys, "argv", []))
    found["environment"] = {n: os.environ[n][:200] for n in ENVIRONMENT if n in os.environ}
    found["gc"] = {
        "enabled": gc.isenabled(),
        "threshold": list(gc.get_threshold()),
        "frozen": gc.get_freeze_count(),
    }
    found["switch_interval_s"] = sys.getswitchinterval()
    # threading.enumerate() takes a lock, and current_thread() would register this thread for good
    found["threads"] = [
        {"tid": t.native_id, "name": str(t.name)[:100], "daemon": bool(t.daemon)}
        for t in list(threading._active.values())[:1000]
        if t.native_id is not None
    ]
    main = threading.main_thread()
    found["main_tid"] = main.native_id
    found["trace_function"] = getattr(threading, "_trace_hook", None) is not None


def loader_facts(loader):
    held = vars(loader)
    names = "num_workers pin_memory batch_size prefetch_factor drop_last persistent_workers timeout"
    facts = {}
    for name in names.split():
        value = held.get(name, held.get("_DataLoader__" + name))
        facts[name] = value if isinstance(value, (int, float, type(None))) else str(type(value))
    facts["class"] = type(loader).__name__
    facts["dataset"] = type(held.get("dataset")).__name__
    facts["multiprocessing_context"] = held.get("_DataLoader__multiprocessing_context") is not None
    return facts


def optimizer_facts(optimizer):
    held = vars(optimizer)
    defaults = held.get("defaults") or {}
    groups = held.get("param_groups") or []
    facts = {"class": type(optimizer).__name__, "groups": len(groups)}
    facts["params"] = sum(len(g.get("params", ())) for g in groups)
    facts["has_state"] = bool(held.get("state"))
    for name in ("foreach", "fused", "capturable", "differentiable"):
        value = groups[0].get(name, defaults.get(name)) if groups else defaults.get(name)
        facts[name] = value if isinstance(value, (bool, type(None))) else str(value)
    return facts


def scan(found):
    """Loaders and optimizers. Types are asked, never the objects' own code."""
    wanted = []
    for module, name, key, facts in (
        ("torch.utils.data.dataloader", "DataLoader", "loaders", loader_facts),
        ("torch.utils.data.dataloader", "_BaseDataLoaderIter", "loader_iterators", None),
        ("torch.optim.optimizer", "Optimizer", "optimizers", optimizer_facts),
    ):
        kind = getattr(sys.modules.get(module), name, None)
        if isinstance(kind, type):
            wanted.append((kind, key, facts))
            found[key] = []
    until = time.monotonic() + DEADLINE_S
    # Oldest first: a loop that makes few objects may leave its optimizer young for hours.
    for generation in (2, 1, 0):
        if not all(found[key] for _, key, _ in wanted):
            look_through(found, wanted, generation, until)


def look_through(found, wanted, generation, until):
    is_wanted = kinds_of([w[0] for w in wanted]).__contains__
    things = gc.get_objects(generation=generation)
    for at in range(0, len(things), SLICE):
        part = things[at : at + SLICE]
        for thing in compress(part, map(is_wanted, map(type, part))):
            note(found, wanted, thing)
        thing = None
        time.sleep(0)
        if time.monotonic() > until:
            found["scan"] = "cut short"
            break


def kinds_of(bases):
    """The classes and all their subclasses."""
    kinds, todo = set(bases), list(bases)
    while todo:
        below = [k for k in type.__subclasses__(todo.pop()) if k not in kinds]
        kinds.update(below)
        todo += below
    return kinds


def note(found, wanted, thing):
    for base, key, facts in wanted:
        if issubclass(type(thing), base) and len(found[key]) < 32:
            found[key].append(facts(thing) if facts else type(thing).__name__)


def attempt(step, found):
    try:
        step(found)
    except Exception as error:
        found["problems"].append("%s: %s" % (type(error).__name__, str(error)[:200]))


def run():
    found = {"problems": []}
    steps = [interpreter_facts, lambda f: f.update(rank_of(f)), torch_facts, distributed]
    for step in steps + ([scan] if SCAN else []):
        attempt(step, found)
    return json.dumps(found)


try:
    result = run()
except Exception as error:
    result = json.dumps({"problems": [str(error)[:200]]})
