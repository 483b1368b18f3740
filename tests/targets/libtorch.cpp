/* A program of libtorch without Python. Maps libcudart if one is given, as a CUDA build does. */
#include <ATen/ATen.h>
#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>

int main(int count, char **arguments) {
  if (count > 1 && !dlopen(arguments[1], RTLD_NOW)) return 1;
  at::Tensor x = at::ones({64, 64});
  printf("ready %d\n", getpid());
  fflush(stdout);
  for (;;) x = at::mm(x, x).clamp_max(1);
}
