/* Inside the loader nearly all of the time. argv[1], argv[2]: libraries. */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
  puts("ready");
  fflush(stdout);
  for (int i = 0;; i++) {
    void *handle = dlopen(argv[1 + i % (argc - 1)], RTLD_NOW);
    if (!handle) {
      puts(dlerror());
      return 1;
    }
    dlclose(handle);
  }
}
