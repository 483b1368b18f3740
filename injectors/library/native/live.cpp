#include "live.h"

#include "sys.h"

namespace gputap {

// The callbacks read through this pointer without asking, also before the first attach of a process
// that inherited them.
static Live off_page;
Live *g_live = &off_page;

bool live_prepare() {
  if (g_live != &off_page) return true;
  Live *page = (Live *)sys::map(sys::kPage, sys::kMapPrivate | sys::kMapAnonymous, -1);
  static_assert(sizeof(Live) <= sys::kPage, "one page");
  if (!page) return false;
  sys::call(sys::kMadvise, (long)page, sys::kPage, sys::kMadvWipeOnFork);
  store_release(&g_live, page);
  return true;
}

}  // namespace gputap
