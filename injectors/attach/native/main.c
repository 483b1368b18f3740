/*
 * gputap-inject: gets the agent library into a running process, or says why not.
 *
 * Prints one JSON object. Exit code 0: done (or, with --dry-run, possible). 3: refused or failed,
 * the target runs on as before. 2: usage.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "injection.h"
#include "process.h"
#include "report.h"

__attribute__((noreturn)) static void usage(void) {
  fprintf(stderr,
          "usage: gputap-inject --pid PID --agent LIBRARY [--timeout-ms N] [--ring-count N]\n"
          "                     [--ring-capacity N] [--trust-seccomp]\n"
          "       gputap-inject --pid PID --dry-run [--agent LIBRARY]\n");
  exit(2);
}

static unsigned number(const char *text) {
  char *end;
  const unsigned long value = strtoul(text, &end, 10);
  if (*text < '0' || *text > '9' || *end || value > 0x7fffffff) {
    usage();
  }
  return (unsigned)value;
}

static void parse(struct injection *injection, int argc, char **argv) {
  static const struct option options[] = {
      {"pid", required_argument, NULL, 'p'},
      {"agent", required_argument, NULL, 'a'},
      {"timeout-ms", required_argument, NULL, 't'},
      {"ring-count", required_argument, NULL, 'n'},
      {"ring-capacity", required_argument, NULL, 'c'},
      {"trust-seccomp", no_argument, NULL, 's'},
      {"dry-run", no_argument, NULL, 'd'},
      {0},
  };
  for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (option) {
    case 'p':
      injection->pid = (pid_t)number(optarg);
      break;
    case 'a':
      injection->agent = optarg;
      break;
    case 't':
      injection->timeout_ms = number(optarg);
      break;
    case 'n':
      injection->ring_count = number(optarg);
      break;
    case 'c':
      injection->ring_capacity = number(optarg);
      break;
    case 's':
      injection->trust_seccomp = true;
      break;
    case 'd':
      injection->dry_run = true;
      break;
    default:
      usage();
    }
  }
  if (!injection->pid || (!injection->agent && !injection->dry_run) || optind != argc) {
    usage();
  }
}

static void print_plan(const struct injection *injection) {
  printf("{\"dry_run\":true,\"reused\":%s,\"threads\":%zu,\"libc\":",
         injection->resident_enter ? "true" : "false",
         list_threads(injection->pid, (pid_t[MAX_THREADS]){0}, MAX_THREADS));
  print_json_string(modules_libc(&injection->modules)->name);
  printf(",\"resolve_ns\":%llu}\n", (unsigned long long)injection->resolve_ns);
}

static void print_result(const struct injection *injection, uint64_t start) {
  printf("{\"control_fd\":%d,\"reused\":%s,\"tid\":%d,\"pause_ns\":%llu,\"stops\":%u,"
         "\"resolve_ns\":%llu,\"load_ns\":%llu,\"total_ns\":%llu}\n",
         injection->control_fd, injection->resident_enter ? "true" : "false", injection->tid,
         (unsigned long long)injection->pause_ns, injection->stops,
         (unsigned long long)injection->resolve_ns, (unsigned long long)injection->load_ns,
         (unsigned long long)(now_ns() - start));
}

int main(int argc, char **argv) {
  const uint64_t start = now_ns();
  static struct injection injection = {.timeout_ms = 10000};
  parse(&injection, argc, argv);
  injection.deadline_ns = start + injection.timeout_ms * 1000000ull;
  window_prepare();
  preflight(&injection);
  resolve(&injection);
  check_seccomp(&injection);
  if (injection.dry_run) {
    print_plan(&injection);
    return 0;
  }
  create_thread(&injection);
  const uint64_t created = now_ns();
  start_boot(&injection);
  load_agent(&injection);
  injection.load_ns = now_ns() - created;
  print_result(&injection, start);
  return 0;
}
