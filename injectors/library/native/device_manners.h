// The target's own profiler comes first. CUPTI has room for one; the calls by which the target would
// take it pass through us, so that we can let go before they are made.
#ifndef GPUTAP_DEVICE_MANNERS_H
#define GPUTAP_DEVICE_MANNERS_H

namespace gputap {

// Device thread. Before CUPTI is taken: from here on the target's calls are seen.
void device_manners_begin();

// Device thread, at every turn: libraries that were loaded since; a holder that is idle again.
void device_manners_look_after(bool wanted);

// Device thread. Somebody of the target holds the subscription but records nothing: CUPTI's records can
// be had without one.
bool device_manners_somebody_is_subscribed();

// Device thread. The slot is held since before our hooks were in, and gputap has asked torch since: its
// profiler is idle. True if nobody but torch can hold it and torch has called nothing since; then it
// counts as such a subscriber.
bool device_manners_take_over_from_torch();

// Device thread: whose buffers CUPTI asks for. Those that are out find their way back.
int device_manners_take_buffers();
void device_manners_give_buffers_back();

// Device thread: the target's calls go straight to CUPTI again.
void device_manners_end();

void device_manners_forget_after_fork();

}  // namespace gputap

#endif
