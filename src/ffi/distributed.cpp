#define USE_C10D_GLOO
#include "distributed.h"
#include "guarded.h"

#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <c10/util/Logging.h>

#ifdef __APPLE__
#include <malloc/malloc.h>
#define malloc_usable_size malloc_size
#else
#include <malloc.h>
#endif

using c10d::ProcessGroupGloo;

struct SpiketraceGroup {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::Backend> backend;
};

// distributed.rs asserts the same.
static_assert(sizeof(SpiketraceMeeting) == 3 * sizeof(void*) + 32, "three texts, a time, five numbers");

namespace {

// A group of one that we make ourselves, only to ask it for another. These headers name gloo's types and no
// more; should they make the object smaller than libtorch does, it ends in the room.
struct Seed : ProcessGroupGloo {
  using ProcessGroupGloo::ProcessGroupGloo;
  char room[1024];
};

// The real group is of libtorch's own making, its size what libtorch allocates: it must be the one of the headers.
c10::intrusive_ptr<c10d::Backend> over_gloo(const c10::intrusive_ptr<c10d::Store>& store, const SpiketraceMeeting& at) {
  const std::chrono::milliseconds timeout(at.timeout_ms);
  auto options = at.own ? ProcessGroupGloo::Options::create(timeout) : ProcessGroupGloo::Options::create_default(timeout);
  if (at.own) options->devices.push_back(ProcessGroupGloo::createDeviceForHostname(at.own));
  const auto seed = c10::make_intrusive<Seed>(c10::make_intrusive<c10d::HashStore>(), 0, 1, options);
  auto group = seed->merge(store, options, at.rank, at.size);
  const auto allocated = malloc_usable_size(group.get());
  // An allocator rounds up: glibc's to 16 bytes, others by up to a quarter.
  TORCH_CHECK(sizeof(ProcessGroupGloo) <= allocated && allocated < sizeof(ProcessGroupGloo) * 5 / 4 + 64,
              "this libtorch's process group takes ", allocated, " bytes, but its headers say ",
              sizeof(ProcessGroupGloo), "; do library and headers belong together?");
  return group;
}

// Errors unless every rank is there once and counts as many as we do.
void meet(c10d::Store& store, const SpiketraceMeeting& at) {
  const auto key = [](int32_t rank) { return "here/" + std::to_string(rank); };
  const auto size = std::to_string(at.size);
  const auto others = store.compareSet("size", std::string(), size);
  TORCH_CHECK(others == size, "WORLD_SIZE is ", size, " here and ", others, " in another process");
  TORCH_CHECK(store.add(key(at.rank), 1) == 1, "two processes have the RANK ", at.rank);
  std::vector<std::string> keys;
  for (int32_t rank = 0; rank < at.size; ++rank) keys.push_back(key(rank));
  try {
    store.wait(keys, std::chrono::milliseconds(at.timeout_ms));
  } catch (const std::exception&) {
    std::string absent;
    for (int32_t rank = 0; rank < at.size; ++rank) {
      if (!store.check({keys[rank]})) absent += (absent.empty() ? "" : ", ") + std::to_string(rank);
    }
    TORCH_CHECK(absent.empty(), "within ", at.timeout_ms / 1000.0, " s there was no rank ", absent);
    throw;
  }
}

}  // namespace

char* spiketrace_group_join(const SpiketraceMeeting* at, SpiketraceGroup** out) {
  return guarded([&] {
    // Makes TORCH_CPP_LOG_LEVEL count.
    static const bool logging = (c10::initLogging(), true);
    (void)logging;
    c10d::TCPStoreOptions options;
    options.port = at->port;
    options.isServer = at->listener >= 0;
    if (options.isServer) options.masterListenFd = at->listener;
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(at->timeout_ms);
    c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::TCPStore>(at->host, options);
    store = c10::make_intrusive<c10d::PrefixStore>(at->prefix, store);
    meet(*store, *at);
#ifdef SPIKETRACE_NCCL
    auto backend = at->gpu < 0 ? over_gloo(store, *at) : spiketrace_nccl(store, *at);
#else
    auto backend = over_gloo(store, *at);
#endif
    if (options.isServer) {
      // For ever: the next group of these processes meets there too. Callers join one at a time.
      static auto& kept = *new std::vector<c10::intrusive_ptr<c10d::Store>>();
      kept.push_back(store);
    }
    *out = new SpiketraceGroup{std::move(store), std::move(backend)};
  });
}

void spiketrace_group_free(SpiketraceGroup* group) noexcept { delete group; }

char* spiketrace_all_reduce(SpiketraceGroup* group, const at::Tensor* tensor, uint8_t op) {
  return guarded([&] {
    std::vector<at::Tensor> tensors{*tensor};
    c10d::AllreduceOptions options;
    options.reduceOp = static_cast<c10d::ReduceOp::RedOpType>(op);
    group->backend->allreduce(tensors, options)->wait();
  });
}

char* spiketrace_broadcast(SpiketraceGroup* group, const at::Tensor* tensor, int32_t root) {
  return guarded([&] {
    std::vector<at::Tensor> tensors{*tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    group->backend->broadcast(tensors, options)->wait();
  });
}

char* spiketrace_barrier(SpiketraceGroup* group) {
  return guarded([&] { group->backend->barrier()->wait(); });
}

void spiketrace_set_grad(const at::Tensor* tensor, const at::Tensor* grad) noexcept { tensor->mutable_grad() = *grad; }
