/* The helper's one line of JSON, and the way out when something is wrong. */
#ifndef GPUTAP_REPORT_H
#define GPUTAP_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Ends the helper: prints {"error": code, "detail": text} and exits 3. Codes are listed in
   injectors/attach/refusals.py. The target is never left in a state that depends on us: see
   window.h. */
__attribute__((noreturn, format(printf, 2, 3))) void refuse(const char *code, const char *format,
                                                            ...);

/* Prints `text` as a JSON string, quotes included. */
void print_json_string(const char *text);

uint64_t now_ns(void);
void sleep_us(unsigned us);

/* Appends to a bounded buffer, cutting what does not fit. Returns the new length. */
__attribute__((format(printf, 4, 5))) size_t append(char *buffer, size_t size, size_t used,
                                                    const char *format, ...);

#endif
