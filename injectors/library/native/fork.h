// The agent when its process forks or ends: off in the child, out of torch's way at exit.
#ifndef GPUTAP_FORK_H
#define GPUTAP_FORK_H

namespace gputap {

// Registers the handlers, once.
void fork_prepare();

// Held around calls into torch that take torch's locks: a fork in between would leave them locked for
// ever in the child, and at exit their owners may be destroyed already. `allowed()` is false when the
// process is ending; then the call must not be made.
class ForkGuard {
 public:
  ForkGuard();
  ~ForkGuard();
  bool allowed() const { return allowed_; }

 private:
  bool allowed_;
};

// Held while the loader's list of libraries is: a child forked in between could load nothing, and throw
// nothing with an older glibc.
class LoaderGuard {
 public:
  LoaderGuard();
  ~LoaderGuard();
};

bool process_is_ending();

}  // namespace gputap

#endif
