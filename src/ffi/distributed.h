// The C ABI of process groups (feature `distributed`); as seam.h.
#pragma once
#include <cstdint>

#include <c10/util/intrusive_ptr.h>

namespace at { class Tensor; }
namespace c10d { class Backend; class Store; }

extern "C" {

// One process's part in a group of several.
typedef struct SpiketraceGroup SpiketraceGroup;

// Where the processes meet, and which of them this one is.
typedef struct SpiketraceMeeting {
  const char* host;    // of the store
  const char* prefix;  // of the store's keys
  const char* own;     // the address that peers reach this process at; null: as GLOO_SOCKET_IFNAME says
  int64_t timeout_ms;
  int32_t port;        // of the store
  int32_t listener;    // a listening socket that becomes the store's own; -1: the store runs elsewhere
  int32_t rank, size;
  int32_t gpu;         // NCCL on this GPU; -1: Gloo
} SpiketraceMeeting;

// Returns when all processes are there.
char* spiketrace_group_join(const SpiketraceMeeting* at, SpiketraceGroup** out);
void spiketrace_group_free(SpiketraceGroup* group) noexcept;

// On dense memory, in place; `op` is a c10d::ReduceOp. Gloo's return when it is done; NCCL's when it stands in the
// GPU's current stream, which all that uses the tensor later is behind.
char* spiketrace_all_reduce(SpiketraceGroup* group, const at::Tensor* tensor, uint8_t op);
char* spiketrace_broadcast(SpiketraceGroup* group, const at::Tensor* tensor, int32_t root);
char* spiketrace_barrier(SpiketraceGroup* group);

// Gives `tensor` a gradient of its shape.
void spiketrace_set_grad(const at::Tensor* tensor, const at::Tensor* grad) noexcept;

}  // extern "C"

// The group over NCCL, where this is built with the feature `nccl`.
c10::intrusive_ptr<c10d::Backend> spiketrace_nccl(const c10::intrusive_ptr<c10d::Store>& store,
                                                  const SpiketraceMeeting& at);
