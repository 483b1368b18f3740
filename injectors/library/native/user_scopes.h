// User scopes (steps, loader, optimizer, `record_function`) without an entry in torch's list of
// callbacks. At every node of a backward pass torch copies that list twice and works it through, 120
// to 180 ns a node on a quiet machine, though no node is a user scope: a tap that is always on must
// not be in it. Instead the call by which a RecordFunction asks for its callbacks goes through us, and
// we add ours to the answer where the scope is a user's.
#ifndef GPUTAP_USER_SCOPES_H
#define GPUTAP_USER_SCOPES_H

#include "torch_api.h"

namespace gputap {

struct StartEnd {
  ContextPointer (*start)(const void *record_function);
  void (*end)(const void *record_function, Context *context);
};

// Looks for the call and tries it out, once. False where this torch was built in another way: then
// the list has to do.
bool user_scopes_find(void *libtorch_cpu, StartEnd callbacks);

// Sends the call through us, or not. False if that cannot be done. By the control thread.
bool user_scopes_put(bool on);

}  // namespace gputap

#endif
