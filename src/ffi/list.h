// The list that seam.h only names. For the C++ half only.
#pragma once
#include <string>
#include <vector>

#include <ATen/ATen.h>

struct SpiketraceList {
  std::vector<at::Tensor> tensors;
  std::string error;
};
