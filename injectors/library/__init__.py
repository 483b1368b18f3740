"""The library that is injected into a target (the agent), and everything that talks to it.

* `native/` is the agent itself; `client` gives it commands, `profiler.agent_memory` reads it.
* `detect` finds out what runs in the target, `layouts/` what libtorch and CPython look like inside,
  `selftest` proves in the target which of that is true.
* `snippets/` is Python source that the agent runs in the target; `snippets.source` loads it.
"""
