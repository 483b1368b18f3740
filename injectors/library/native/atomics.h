// Atomic access to plain fields: the shared memory is declared in C, so no std::atomic there.
#ifndef GPUTAP_ATOMICS_H
#define GPUTAP_ATOMICS_H

#include <stdint.h>

#define GPUTAP_LIKELY(x) __builtin_expect(!!(x), 1)
#define GPUTAP_UNLIKELY(x) __builtin_expect(!!(x), 0)

namespace gputap {

template <typename T>
inline T load(const T *at) {
  return __atomic_load_n(at, __ATOMIC_RELAXED);
}

template <typename T>
inline T load_acquire(const T *at) {
  return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

template <typename T, typename V>
inline void store(T *at, V value) {
  __atomic_store_n(at, (T)value, __ATOMIC_RELAXED);
}

template <typename T, typename V>
inline void store_release(T *at, V value) {
  __atomic_store_n(at, (T)value, __ATOMIC_RELEASE);
}

template <typename T, typename V>
inline T add(T *at, V value) {
  return __atomic_fetch_add(at, (T)value, __ATOMIC_RELAXED);
}

template <typename T, typename V>
inline T exchange(T *at, V value) {
  return __atomic_exchange_n(at, (T)value, __ATOMIC_ACQ_REL);
}

template <typename T, typename V>
inline bool change(T *at, V from, V to) {
  T expected = (T)from;
  return __atomic_compare_exchange_n(at, &expected, (T)to, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE);
}

// Keeps the compiler from moving accesses across; the processor's half is the other side's
// membarrier().
inline void compiler_fence() { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
inline void full_fence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

}  // namespace gputap

#endif
