#include "seam.h"
#include "guarded.h"

#include <ATen/ATen.h>
#include <ATen/TensorIterator.h>

char* spiketrace_sweep(const at::Tensor* output, int64_t grain, SpiketraceSweepBody body, const void* call) {
  return guarded([&] {
    if (output->numel() <= grain) {
      body(call, 0, output->numel());
    } else {
      at::TensorIteratorConfig config;
      auto iterator = config.resize_outputs(false).check_all_same_dtype(false).add_output(*output).build();
      auto* start = static_cast<char*>(output->data_ptr());
      const auto size = static_cast<int64_t>(output->element_size());
      // libtorch cuts the work for its own threads; a dense tensor is one row in memory order.
      iterator.for_each(
          [&](char** data, const int64_t* strides, int64_t n, int64_t rows) {
            for (int64_t i = 0; i < rows; ++i) body(call, (data[0] + i * strides[1] - start) / size, n);
          },
          grain);
    }
  });
}
