#include "seam.h"
#include "guarded.h"
#include "list.h"

#include <mutex>

#include <ATen/ATen.h>

// The generator that operations on the device of `like` draw from.
static at::Generator generator_of(const at::Tensor* like) {
  return at::globalContext().defaultGenerator(like->device());
}

char* spiketrace_random_state(const at::Tensor* like, SpiketraceList* out) {
  return guarded([&] {
    auto generator = generator_of(like);
    const std::lock_guard<std::mutex> lock(generator.mutex());
    out->tensors.push_back(generator.get_state());
  });
}

char* spiketrace_set_random_state(const at::Tensor* like, const at::Tensor* state) {
  return guarded([&] {
    auto generator = generator_of(like);
    const std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(*state);
  });
}
