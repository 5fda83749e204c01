// The group over NCCL (feature `nccl`).
#define USE_C10D_NCCL
#include "distributed.h"

#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

c10::intrusive_ptr<c10d::Backend> spiketrace_nccl(const c10::intrusive_ptr<c10d::Store>& store,
                                                  const SpiketraceMeeting& at) {
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = std::chrono::milliseconds(at.timeout_ms);
  auto group = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, at.rank, at.size, std::move(options));
  // A barrier has no tensor to take the GPU from.
  group->setBoundDeviceId(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(at.gpu)));
  return group;
}
