#include "seam.h"
#include "guarded.h"
#include "list.h"

#include <algorithm>
#include <vector>

#include <ATen/TensorIterator.h>

char* spiketrace_sweep(const SpiketraceList* tensors, size_t outputs, int64_t grain, SpiketraceSweepBody body,
                       const void* call) {
  return guarded([&] {
    at::TensorIteratorConfig config;
    config.resize_outputs(false).check_all_same_dtype(true);
    const auto& all = tensors->tensors;
    for (size_t i = 0; i < all.size(); ++i) {
      if (i < outputs) {
        config.add_output(all[i]);
      } else {
        config.add_const_input(all[i]);
      }
    }
    auto iterator = config.build();
    const size_t count = all.size();
    // libtorch cuts the work for its own threads.
    iterator.for_each(
        [&](char** base, const int64_t* strides, int64_t size0, int64_t size1) {
          std::vector<char*> data(base, base + count);
          for (int64_t j = 0; j < size1; ++j) {
            body(call, data.data(), strides, size0);
            for (size_t i = 0; i < count; ++i) data[i] += strides[count + i];
          }
        },
        grain);
    // What was written is known to libtorch's checks of saved tensors.
    for (size_t i = 0; i < outputs; ++i) all[i].unsafeGetTensorImpl()->bump_version();
  });
}
