#include "seam.h"
#include "guarded.h"

#include <ATen/autocast_mode.h>

// raw.rs asserts the same.
static_assert(sizeof(SpiketraceAutocast) == 3, "a byte and two bools");

char* spiketrace_autocast(const at::Tensor* like, SpiketraceAutocast* state) {
  return guarded([&] {
    const auto device = like->device().type();
    const SpiketraceAutocast before{static_cast<int8_t>(at::autocast::get_autocast_dtype(device)),
                                    at::autocast::is_autocast_enabled(device),
                                    at::autocast::is_autocast_cache_enabled()};
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(state->dtype));
    at::autocast::set_autocast_enabled(device, state->enabled);
    at::autocast::set_autocast_cache_enabled(state->cache);
    *state = before;
  });
}
