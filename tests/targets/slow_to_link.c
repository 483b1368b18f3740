/*
 * A library whose linking takes milliseconds: two million pointers into itself come before the slot
 * of the function that it calls. Between its appearance in the loader's list and the end of that, the
 * slot holds an offset.
 *
 * Build: cc -shared -fPIC slow_to_link.c -o slow.so -L FOLDER -l:libnccl.so.2 -Wl,-z,lazy
 */
#include <stddef.h>

__asm__(".data\nspot: .zero 8\ntable: .rept 2000000\n.quad spot\n.endr\n.text\n");

int ncclAllReduce(const void *, void *, size_t, int, int, void *, void *);

int call(void) { return ncclAllReduce(NULL, NULL, 5, 7, 0, NULL, NULL); }
