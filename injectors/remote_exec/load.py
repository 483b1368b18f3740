# Runs in a thread that enter.py has started: loads the agent, or wakes the one that is there, and
# writes down how that went. gputap replaces the values of the names in capitals.
import _thread

FOLDER = ""
LIBRARY = ""
MEMFD = ""
RESIDENT = 0
RING_COUNT = 0
RING_CAPACITY = 0
LOWEST_FD = 600


def write_all(descriptor, data):
    import os

    while data:
        data = data[os.write(descriptor, data) :]


def memfd(library):
    import errno
    import fcntl
    import os

    try:
        low = os.memfd_create(MEMFD, os.MFD_CLOEXEC | 0x10)  # MFD_EXEC, since Linux 6.3
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        low = os.memfd_create(MEMFD, os.MFD_CLOEXEC)
    try:
        write_all(low, library)
        return fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, LOWEST_FD)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EMFILE):
            raise
        return os.dup(low)  # the limit on descriptors is low
    finally:
        os.close(low)


def open_library(path):
    import ctypes

    return ctypes.CDLL(path, mode=0x1000)  # RTLD_NODELETE


def load(path):
    import os

    with open(path, "rb") as file:
        library = file.read()
    try:
        descriptor = memfd(library)
    except OSError:
        return open_library(path)
    try:
        # The name says the thread, so that no library loaded earlier has the same: glibc would
        # return that one.
        return open_library(f"/proc/self/task/{_thread.get_native_id()}/fd/{descriptor}")
    except OSError:
        return open_library(path)
    finally:
        os.close(descriptor)


def agent_enter():
    import ctypes

    if RESIDENT:
        return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(RESIDENT)
    found = load(f"{FOLDER}/{LIBRARY}")["gputap_agent_enter"]
    found.argtypes = (ctypes.c_void_p,)
    return found


def call():
    import ctypes
    import struct

    layout = struct.Struct("<QQQQIIii")  # struct gputap_enter
    process = ctypes.CDLL(None)
    names = ("dlsym", "dlopen", "pthread_create")
    symbols = [ctypes.cast(process[name], ctypes.c_void_p).value for name in names]
    argument = ctypes.create_string_buffer(
        layout.pack(layout.size, *symbols, RING_COUNT, RING_CAPACITY, -1, 0), layout.size
    )
    status = agent_enter()(ctypes.addressof(argument))
    return {"status": status, "control_fd": layout.unpack(argument.raw)[6]}


def tell(answer):
    import json
    import os

    descriptor = os.open(f"{FOLDER}/answer", os.O_WRONLY | os.O_CLOEXEC)
    try:
        write_all(descriptor, json.dumps(answer).encode() + b"\n")
    finally:
        os.close(descriptor)


def load_and_tell(pause_ns):
    try:
        answer = call()
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    answer["pause_ns"] = pause_ns
    try:
        tell(answer)
    except OSError:
        pass  # gputap has gone, and its folder with it


# What a signal handler of the target's raised while its main thread was in enter.py, raised there
# anew.
def pass_on(kind):
    import ctypes
    import threading

    main = ctypes.c_ulong(threading.main_thread().ident)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(main, ctypes.py_object(kind))
