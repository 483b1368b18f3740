"""Counters of torch.compile and of the collector; the difference of two readings is of use."""

import gc
import json
import sys
import time

LIMIT = 40


def flat(counter):
    items = sorted(counter.items(), key=lambda item: -item[1])[:LIMIT]
    return {str(key)[:300]: int(value) for key, value in items}


def compiled(found):
    utils = sys.modules.get("torch._dynamo.utils")
    if utils is None:
        return
    found["dynamo"] = {
        str(name): flat(counter)
        for name, counter in list(getattr(utils, "counters", {}).items())
        if counter
    }
    times = getattr(utils, "compilation_time_metrics", {})
    found["compile_s"] = {
        str(name)[:100]: [len(values), float(sum(values))]
        for name, values in list(times.items())[:LIMIT]
        if isinstance(values, list)
    }


def collected(found):
    found["gc"] = {"stats": gc.get_stats(), "count": list(gc.get_count())}


def attempt(step, found):
    try:
        step(found)
    except Exception as error:
        found["problems"].append("%s: %s" % (type(error).__name__, str(error)[:200]))


def run():
    found = {"time_unix_ns": time.time_ns(), "problems": []}
    for step in (compiled, collected):
        attempt(step, found)
    return json.dumps(found)


try:
    result = run()
except Exception as error:
    result = json.dumps({"problems": [str(error)[:200]]})
